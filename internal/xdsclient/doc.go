// Package xdsclient keeps a delta ADS stream to a control plane open for as long
// as it runs: it subscribes to resource types by wildcard, hands what changed to
// one handler a type, acknowledges or rejects, reconnects with backoff, and tells
// the server after a reconnect what it already holds.
//
// It knows nothing of what the resources mean. Connect gives the same connection,
// checked against a root bundle that is read anew for each handshake and carrying
// a token that is read anew for each call, to other clients of the control plane.
package xdsclient
