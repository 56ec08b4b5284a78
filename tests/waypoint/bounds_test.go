package waypoint_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// bounded is what a client sees that does not keep to bounds.
type bounded struct {
	Idle, Body retort
	// Streams is what the waypoint lets a connection of HTTP/2 have, and Refused how a
	// stream beyond was reset.
	Streams uint32
	Refused string
}

func beyondBounds(in io.Reader, out io.Writer) error {
	var host string
	if err := json.NewDecoder(in).Decode(&host); err != nil {
		return err
	}
	var b bounded
	var err error
	b.Idle = silentAfter(host, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	b.Body = silentAfter(host, "POST / HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 10\r\n\r\nx")
	if b.Streams, b.Refused, err = thirdStream(host); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(b)
}

// silentAfter says something and then nothing, and reads what comes until the end.
func silentAfter(host, say string) (r retort) {
	c, err := net.Dial("tcp", host+":80")
	if err != nil {
		return retort{Error: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, say); err != nil {
		return retort{Error: err.Error()}
	}
	begin := time.Now()
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			r.Took, r.Closed = time.Since(begin), errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if !r.Closed {
				r.Error = err.Error()
			}
			return r
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		r.Statuses = append(r.Statuses, resp.StatusCode)
	}
}

// thirdStream opens two streams that stall, and one more.
func thirdStream(host string) (streams uint32, refused string, err error) {
	c, err := net.Dial("tcp", host+":80")
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return 0, "", err
	}
	fr := http2.NewFramer(c, c)
	if err := fr.WriteSettings(); err != nil {
		return 0, "", err
	}
	for _, stream := range []uint32{1, 3, 5} {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", "/?stall=bounds"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			return 0, "", err
		}
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return streams, "", err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
				streams = v
			}
		case *http2.RSTStreamFrame:
			return streams, fmt.Sprintf("stream %d: %s", f.StreamID, f.ErrCode), nil
		}
	}
}

// What annotations of a Gateway say is kept by its waypoint: each bound has its answer
// and is counted.
func TestBoundsOfAGateway(t *testing.T) {
	m := use(t)
	annotation := func(name, value string) string { return "ambit-mesh.io/waypoint-" + name + ": \"" + value + "\"" }
	to := ", labels: {ambit-mesh.io/use-waypoint: tight}"
	m.apply(bind(service("bounds", "v1"), "ambit-mesh.io/use-waypoint: tight", "") + datagramService("bounds-udp", "v1", to) +
		gateway("app", "tight", strings.Join([]string{annotation("idle-timeout", "2s"), annotation("body-timeout", "2s"), annotation("max-streams", "2"), annotation("max-udp-sessions", "3")}, ", "), "Same"))
	m.until("the waypoint serves", request{URL: "http://bounds/"}, status(200))
	var got bounded
	m.run("client", "bounds", &got, "bounds")
	if r := got.Idle; len(r.Statuses) != 1 || r.Statuses[0] != 200 || !r.Closed || r.Took < 2*time.Second {
		t.Errorf("an idle connection: %+v", r)
	}
	m.countedAt("tight", "ambit_requests_rejected_total", `limit="idle_timeout"`, `status="none"`)
	if r := got.Body; len(r.Statuses) != 1 || r.Statuses[0] != 408 || !r.Closed || r.Took < 2*time.Second {
		t.Errorf("a body that does not come: %+v", r)
	}
	m.countedAt("tight", "ambit_requests_rejected_total", `limit="body_timeout"`, `status="408"`)
	if got.Streams != 2 || got.Refused != "stream 5: REFUSED_STREAM" {
		t.Errorf("streams: %d, %s", got.Streams, got.Refused)
	}
	m.countedAt("tight", "ambit_requests_rejected_total", `limit="max_streams"`)

	if got := m.datagrams("client", "bounds-udp:7000", 8, 10); got.Versions["v1"] > 3 || got.Versions["v1"] == 0 {
		t.Errorf("sessions: %+v, want at most 3 answered", got)
	}
	m.countedAt("tight", "ambit_requests_rejected_total", `limit="udp_sessions"`, `status="502"`)
	m.accessLog(`"protocol":"udp"`, `"direction":"outbound"`, "bounds-udp", "limit udp_sessions")
	if got := m.datagrams("tester", "bounds-udp:7000", 1, 10); got.Versions["v1"] != 1 {
		t.Errorf("another client: %+v", got)
	}
	m.apply(gateway("app", "tight", annotation("idle-timeout", "soon"), "Same"))
	m.condition("Gateway", "tight", "Accepted", "soon", "not a duration")
}
