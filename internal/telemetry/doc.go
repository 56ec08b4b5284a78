// Package telemetry makes the loggers and the metric registry that a component
// is given. Nothing here is global: a component that was given none logs nowhere.
package telemetry
