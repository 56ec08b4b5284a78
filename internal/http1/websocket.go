package http1

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 says so; nothing depends on its strength
	"encoding/base64"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/message"
)

// HTTP/2 opens a WebSocket without the key that HTTP/1.1 needs (RFC 8441 section
// 5.1). Whoever translates between them has to add it on one side and to answer it
// on the other; that is here, so that a proxy in between need not know.

// needsKey reports whether req is a WebSocket without a key, as HTTP/2 opens it.
func needsKey(req *message.Request) bool {
	return req.Method == "CONNECT" && req.Protocol == "websocket" && !req.Fields.Has("sec-websocket-key")
}

// newKey makes the key of an opening handshake, RFC 6455 section 4.1.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// acceptKey answers a key, RFC 6455 section 4.2.2.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// checkAccept takes the answer to a key of ours out of a response, which is for
// somebody who knows of none.
func checkAccept(key string, resp *message.Response) error {
	if got := resp.Fields.Get("sec-websocket-accept"); got != acceptKey(key) {
		return fmt.Errorf("the WebSocket key was not answered: %w", message.ErrProtocol)
	}
	resp.Fields.Del("sec-websocket-accept")
	return nil
}

// appendAccept answers the client's key if who opened the WebSocket has not.
func appendAccept(b []byte, req *message.Request, resp *message.Response) []byte {
	key := req.Fields.Get("sec-websocket-key")
	if key == "" || req.Protocol != "websocket" || resp.Fields.Has("sec-websocket-accept") {
		return b
	}
	b = append(b, "sec-websocket-accept: "...)
	b = append(b, acceptKey(key)...)
	return append(b, "\r\n"...)
}
