// Package service works out what Services need: virtual addresses, endpoints,
// EndpointSlices, and what each node has to do with traffic to them.
//
// It is pure: objects in, values out.
package service
