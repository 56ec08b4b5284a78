package netns_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// check is one thing that a client does.
type check struct {
	Kind string `json:"kind"`
	Addr string `json:"addr"`
	// Network is tcp4 or tcp6 where a name has addresses of both; tcp if empty.
	Network string `json:"network,omitempty"`
	Size    int64  `json:"size,omitempty"`
}

// outcome is what came of it: Error is empty when it went as it should.
type outcome struct {
	Check check  `json:"check"`
	Error string `json:"error,omitempty"`
	Saw   string `json:"saw,omitempty"` // whoami: the client's address as the server saw it
}

// probe runs the role named by the arguments, in a pod.
func probe(args []string) int {
	var err error
	switch args[0] {
	case "serve":
		err = probeServe()
	case "graceful":
		err = probeGraceful()
	case "checks":
		err = probeChecks()
	case "steady":
		err = probeSteady(args[1])
	case "fetch":
		err = probeFetch(args[1])
	case "hold":
		err = probeHold(args[1], args[2])
	case "waypoint":
		err = probeWaypoint(args[1:])
	case "slow":
		err = probeSlow(args[1], args[2])
	case "sniff":
		err = probeSniff(args[1])
	case "stream":
		err = probeStream(args[1])
	case "chaos":
		err = probeChaos(args[1])
	case "cut":
		err = probeCut(args[1:])
	case "mend":
		err = probeMend(args[1:])
	case "meddle":
		err = probeMeddle(args[1:])
	default:
		err = fmt.Errorf("unknown role %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	return 0
}

func probeFetch(url string) error {
	method := http.MethodGet
	if to, ok := strings.CutPrefix(url, "POST "); ok {
		method, url = http.MethodPost, to
	}
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}

// probeChecks reads checks from standard input and prints their outcomes.
func probeChecks() error {
	var checks []check
	if err := json.NewDecoder(os.Stdin).Decode(&checks); err != nil {
		return err
	}
	outcomes := make([]outcome, len(checks))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, c := range checks {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			outcomes[i] = c.run()
		}()
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(outcomes)
}

func (c check) run() outcome {
	o := outcome{Check: c}
	if f := datagramClients[c.Kind]; f != nil {
		var err error
		if o.Saw, err = f(c); err != nil {
			o.Error = err.Error()
		}
		return o
	}
	conn, err := net.DialTimeout(cmp.Or(c.Network, "tcp"), c.Addr, 20*time.Second)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
		o.Saw, err = clients[c.Kind](conn.(*net.TCPConn), c)
		conn.Close()
	}
	if c.Kind == "refused" && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED)) {
		err = nil // already while connecting
	}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}
