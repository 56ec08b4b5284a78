package proxy

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"

	"github.com/ambit-mesh/ambit/apis/waypoint"
	"github.com/ambit-mesh/ambit/internal/message"
)

// websocketGUID is that of RFC 6455 section 1.3.
const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// translateUpgrade makes an upgrade fit the version of HTTP that the endpoint
// speaks: HTTP/1.1 has GET with Upgrade (RFC 6455), HTTP/2 has CONNECT with
// :protocol (RFC 8441).
func (a *attempts) translateUpgrade() {
	if a.up.Protocol == "" {
		return
	}
	switch {
	case a.proto == waypoint.Protocol_PROTOCOL_HTTP1 && a.up.Method == "CONNECT":
		a.up.Method = "GET"
		if a.up.Protocol == "websocket" {
			var key [16]byte
			_, _ = rand.Read(key[:]) // never fails
			a.up.Fields.Set("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
			if !a.up.Fields.Has("sec-websocket-version") {
				a.up.Fields.Add("sec-websocket-version", "13")
			}
		}
	case a.proto == waypoint.Protocol_PROTOCOL_HTTP2 && a.up.Method != "CONNECT":
		a.up.Method = "CONNECT"
		a.up.Fields.Del("sec-websocket-key")
	}
}

// translateAccepted makes the answer to an upgrade fit what the client speaks.
func (a *attempts) translateAccepted(resp *message.Response) {
	req := a.x.req
	if req.Protocol == "" {
		return
	}
	switch {
	case resp.Status == 101 && req.Version == message.HTTP2:
		resp.Status = 200
		resp.Fields.Del("sec-websocket-accept")
	case resp.Status/100 == 2 && a.up.Method == "CONNECT" && req.Version != message.HTTP2:
		resp.Status, resp.Protocol = 101, req.Protocol
		if key := req.Fields.Get("sec-websocket-key"); key != "" && req.Protocol == "websocket" {
			sum := sha1.Sum([]byte(key + websocketGUID)) //nolint:gosec // see above
			resp.Fields.Set("sec-websocket-accept", base64.StdEncoding.EncodeToString(sum[:]))
		}
	}
	if resp.Status == 101 || resp.Status == 200 {
		a.x.record.HTTP.Upgrade = req.Protocol
	}
}
