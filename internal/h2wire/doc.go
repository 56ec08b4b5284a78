// Package h2wire is what our two HTTP/2 engines have in common, internal/hbone for
// tunnels and internal/http2 for requests: the layout of frames, the error codes,
// and the budget of frames that cost a peer nothing. It holds no connection and
// does no input or output.
package h2wire
