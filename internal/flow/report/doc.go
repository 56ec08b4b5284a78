// Package report turns calls into what people and programs read: one line for
// each, and the edges of who talks to whom. It is pure.
package report
