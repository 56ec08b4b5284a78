package waypoint_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// talkative is how many datagrams a session has whose end a client's ztunnel awaits for
// minutes.
const talkative = 8

// restingSession asks by one socket, says so, and asks by the same socket again when the
// input has ended. It gives the last answer.
func restingSession(in io.Reader, out io.Writer) error {
	var to struct{ Addr string }
	if err := json.NewDecoder(in).Decode(&to); err != nil {
		return err
	}
	c, err := net.Dial("udp", to.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for range talkative {
		if _, err := askedAgain(c); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, "answered\n"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	answer, err := askedAgain(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}

// askedAgain asks until there is an answer, as who speaks UDP has to.
func askedAgain(c net.Conn) (string, error) {
	b := make([]byte, 100)
	var err error
	for begun := time.Now(); time.Since(begun) < 10*unanswered; {
		if _, err = c.Write([]byte("x")); err != nil {
			continue // an ICMP error of the one before
		}
		_ = c.SetReadDeadline(time.Now().Add(unanswered / 4))
		var n int
		if n, err = c.Read(b); err == nil {
			return string(b[:n]), nil
		}
	}
	return "", errors.Join(errors.New("no answer"), err)
}

// A session at rest ends soon after its Service is bound to the waypoint no more, and
// nothing has failed; its client's socket goes on, by the way of then.
func TestUDPAtRest(t *testing.T) {
	m := use(t)
	wp := gateway("app", "resting-wp", "", "Same")
	m.apply(datagramService("resting", "v1", ", labels: {ambit-mesh.io/use-waypoint: resting-wp}") + wp)
	var answer string
	end := m.converse("client", map[string]string{"Addr": "resting:7000"}, "answered", &answer, "datagrams-resting")
	pods := m.names("resting-wp")
	if len(pods) != 1 {
		t.Fatalf("pods of the waypoint: %v", pods)
	}
	m.apply(datagramService("resting", "v1", "") + wp)
	line := m.lineOf([]string{`"protocol":"udp"`, `"dst.service":"resting.app`}, []string{pods[0], "-n", "app"})
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil || got["error"] != nil {
		t.Errorf("%v, failed with %v: %s", err, got["error"], line)
	}
	end()
	if len(answer) < 2 || answer[:2] != "v1" {
		t.Errorf("the same socket afterwards: %q", answer)
	}
}
