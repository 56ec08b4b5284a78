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
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// drainTime is what the waypoints of the mesh have to end requests.
const drainTime = 8 * time.Second

// farewell is what clients see of a waypoint that stops.
type farewell struct {
	Idle, Busy, Long leftover
	Frames           []sentFrame // of a connection of HTTP/2, in their order
	Ended            time.Time   // that connection
}

// leftover is what came on a connection of HTTP/1.1.
type leftover struct {
	First string // the answer before
	Heard string // afterwards, at most 4 KiB
	Size  int
	Ended time.Time
	Error string
}

// sentFrame is a frame that the waypoint has sent; of DATA the payload is left out.
type sentFrame struct {
	Type   http2.FrameType
	Stream uint32
	Raw    []byte
	At     time.Time
}

// drained has connections of each kind when the waypoint is told to stop, and reads
// them to their ends.
func drained(in io.Reader, out io.Writer) error {
	var to struct{ Host, Pod string }
	if err := json.NewDecoder(in).Decode(&to); err != nil {
		return err
	}
	host := to.Host
	var f farewell
	errs := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { f.Idle = leftoverOf(host, "/", "") })
	wg.Go(func() { f.Busy = leftoverOf(host, "", "/?stall=drain") })
	wg.Go(func() { f.Long = leftoverOf(host, "", "/?size=100000000&pause=200") })
	wg.Go(func() {
		var err error
		f.Frames, err = framesUntilEnd(host, func() {
			once(transport(false), request{URL: "http://" + to.Pod + ":8080/go?key=drain"})
		})
		f.Ended = time.Now()
		errs <- err
	})
	wg.Wait()
	if err := <-errs; err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(f)
}

func leftoverOf(host, first, then string) (l leftover) {
	c, err := net.Dial("tcp", host+":80")
	if err != nil {
		return leftover{Error: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	br := bufio.NewReader(c)
	if first != "" {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", first, host)
		r, err := http.ReadResponse(br, nil)
		if err != nil {
			return leftover{Error: err.Error()}
		}
		_, _ = io.Copy(io.Discard, r.Body)
		l.First = r.Status + " " + r.Header.Get("connection")
	}
	if then != "" {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", then, host)
	}
	all, err := io.ReadAll(br)
	l.Heard, l.Size, l.Ended = string(all[:min(len(all), 4096)]), len(all), time.Now()
	if err != nil {
		l.Error = err.Error()
	}
	return l
}

// framesUntilEnd has a long answer coming. When it is told to go away it asks once
// more, before it lets on that it has heard, and once afterwards.
func framesUntilEnd(host string, told func()) (frames []sentFrame, err error) {
	c, err := net.Dial("tcp", host+":80")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	var raw bytes.Buffer
	fr := http2.NewFramer(c, io.TeeReader(c, &raw))
	fr.SetMaxReadFrameSize(1 << 20)
	ask := func(stream uint32, path string) error {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", path}} {
			_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	err = errors.Join(fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}), fr.WriteWindowUpdate(0, 1<<30), ask(1, "/?size=100000000&pause=200"))
	if err != nil {
		return nil, err
	}
	for goAways := 0; err == nil; {
		raw.Reset()
		var f http2.Frame
		if f, err = fr.ReadFrame(); err != nil {
			break
		}
		h := f.Header()
		s := sentFrame{Type: h.Type, Stream: h.StreamID, At: time.Now()}
		if h.Type != http2.FrameData {
			s.Raw = bytes.Clone(raw.Bytes())
		}
		frames = append(frames, s)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = fr.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			if goAways++; goAways == 1 {
				told()
			}
			if goAways <= 2 { // a third comes with the end
				err = ask(uint32(2*goAways+1), "/")
			}
		}
	}
	return frames, nil // the end, whichever way: the frames say what came before it
}

// A waypoint that is told to stop says so on every connection, answers what is under
// way, and lets long answers go on until its time is up.
func TestDrain(t *testing.T) {
	m := use(t)
	self, _ := os.Executable()
	var pod strings.Builder
	deploy(&pod, self, 1, "app", "leaving", "leaving", "v1", "client", "echo")
	m.apply(bind(strings.ReplaceAll(service("leaving", ""), "app: echo", "app: leaving"), "ambit-mesh.io/use-waypoint: leaving-wp", "") +
		pod.String() + gateway("app", "leaving-wp", "", "Same"))
	m.until("the waypoint serves", request{URL: "http://leaving/"}, status(200))
	var at string
	for _, a := range m.v4("app", "leaving-") {
		if !slices.Contains(m.v4("app", "leaving-wp-"), a) {
			at = a
		}
	}
	before := m.total("leaving")
	var f farewell
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run("client", map[string]string{"Host": "leaving", "Pod": at}, &f, "drained")
	}()
	for m.total("leaving") < before+4 {
		select {
		case <-done:
			t.Fatalf("it was over before it began: %+v", f)
		default:
			pause(t)
		}
	}
	m.signal("leaving-wp", syscall.SIGTERM)
	<-done

	var first, second *sentFrame
	streams := map[uint32][]http2.FrameType{}
	data := 0
	for i := range f.Frames {
		fr := &f.Frames[i]
		streams[fr.Stream] = append(streams[fr.Stream], fr.Type)
		switch {
		case fr.Type == http2.FrameGoAway && first == nil:
			first = fr
		case fr.Type == http2.FrameGoAway && second == nil: // one more may come with the end
			second = fr
		case fr.Type == http2.FrameData && fr.Stream == 1 && second != nil:
			data++
		}
	}
	if first == nil || second == nil {
		t.Fatalf("GOAWAY: %v, %v; frames by stream %v", first, second, streams)
	}
	// RFC 9113 section 6.8: first the largest number that there is, so that requests
	// on their way are answered, then that of the last one that came.
	for _, want := range []struct {
		frame *sentFrame
		last  string
	}{{first, "\x7f\xff\xff\xff"}, {second, "\x00\x00\x00\x03"}} {
		if raw := "\x00\x00\x10\x07\x00\x00\x00\x00\x00" + want.last + "\x00\x00\x00\x00draining"; string(want.frame.Raw) != raw {
			t.Errorf("GOAWAY is %q, want %q", want.frame.Raw, raw)
		}
	}
	if !slices.Contains(streams[3], http2.FrameHeaders) || !slices.Contains(streams[3], http2.FrameData) {
		t.Errorf("a request on its way was not answered: %v", streams[3])
	}
	for _, typ := range streams[5] {
		if typ == http2.FrameHeaders || typ == http2.FrameData {
			t.Errorf("a request behind the last GOAWAY was answered: %v", streams[5])
		}
	}
	if data == 0 {
		t.Error("the long answer did not go on")
	}
	if took := f.Ended.Sub(first.At); took < drainTime-time.Second {
		t.Errorf("the long answer ended after %s, want %s", took, drainTime)
	}

	if l := f.Idle; l.First != "200 OK " || l.Size != 0 || l.Error != "" || !l.Ended.Before(f.Ended) {
		t.Errorf("an idle connection: %+v", l)
	}
	head, body, _ := strings.Cut(f.Busy.Heard, "\r\n\r\n")
	if l := f.Busy; !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || strings.Count(head+"\r\n", "\r\nconnection: close\r\n") != 1 || !json.Valid([]byte(body)) || l.Error != "" || !l.Ended.Before(f.Ended) {
		t.Errorf("an answer under way: %+v", l)
	}
	if l := f.Long; l.Size < 4096 || l.Size >= 100000000 || strings.Contains(l.Heard, "connection: close") || l.Ended.Sub(first.At) < drainTime-time.Second {
		t.Errorf("a long answer: %d bytes, ended %s after the first GOAWAY, %s", l.Size, l.Ended.Sub(first.At), l.Error)
	}
}
