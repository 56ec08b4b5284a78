package waypoint_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// request is what the client sends.
type request struct {
	URL      string            `json:"url"`
	Method   string            `json:"method,omitempty"`
	Host     string            `json:"host,omitempty"`
	Header   map[string]string `json:"header,omitempty"`
	Body     int64             `json:"body,omitempty"` // bytes
	Chunked  bool              `json:"chunked,omitempty"`
	HTTP2    bool              `json:"http2,omitempty"`
	Times    int               `json:"times,omitempty"`
	Parallel int               `json:"parallel,omitempty"` // so many of them at a time
	Fresh    bool              `json:"fresh,omitempty"`    // a connection of its own
	Upgrade  string            `json:"upgrade,omitempty"`
	Sum      bool              `json:"sum,omitempty"`   // the bodies are random, and summed up
	Lines    string            `json:"lines,omitempty"` // of the body only the lines with it are given
}

// response is what came back.
type response struct {
	Status  int           `json:"status"`
	Header  http.Header   `json:"header"`
	Trailer http.Header   `json:"trailer"`
	Body    string        `json:"body"` // of at most 4 KiB
	Size    int64         `json:"size"`
	Sum     string        `json:"sum"` // of the body that was sent, or else that came
	Seen    seen          `json:"seen"`
	Took    time.Duration `json:"took"`
	Error   string        `json:"error"`
	// Of Times requests: how many by version, by pod and by status.
	Versions map[string]int `json:"versions"`
	Pods     map[string]int `json:"pods"`
	Statuses map[int]int    `json:"statuses"`
}

// client sends requests.
func client(in io.Reader, out io.Writer) error {
	var list []request
	if err := json.NewDecoder(in).Decode(&list); err != nil {
		return err
	}
	one, two := transport(false), transport(true)
	answers := make([]response, len(list))
	for i, r := range list {
		t := one
		if r.HTTP2 {
			t = two
		}
		answers[i] = send(t, r)
	}
	return json.NewEncoder(out).Encode(answers)
}

func transport(h2 bool) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true} // the test's own certificate
}

// send sends a request as often as it says, and gives the last answer and how
// many there were of each.
func send(t *http.Transport, r request) response {
	if r.Upgrade != "" {
		return sendUpgrade(r)
	}
	var out response
	var mu sync.Mutex
	var wg sync.WaitGroup
	versions, pods, statuses := map[string]int{}, map[string]int{}, map[int]int{}
	left := make(chan struct{}, max(1, r.Times))
	for range max(1, r.Times) {
		left <- struct{}{}
	}
	close(left)
	for range max(1, r.Parallel) {
		wg.Go(func() {
			for range left {
				got := once(t, r)
				mu.Lock()
				out = got
				statuses[got.Status]++
				versions[got.Header.Get("x-version")]++
				pods[got.Header.Get("x-pod")]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	out.Versions, out.Pods, out.Statuses = versions, pods, statuses
	return out
}

// once sends one request. The status is 0 when there was no answer.
func once(t *http.Transport, r request) (out response) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // large bodies take long on a busy machine
	defer cancel()
	method := r.Method
	if method == "" {
		method = "GET"
	}
	var body io.Reader
	sum := sha256.New()
	if r.Body > 0 {
		body = io.LimitReader(zeros{}, r.Body)
	}
	if r.Body > 0 && r.Sum {
		body = io.TeeReader(io.LimitReader(random(), r.Body), sum)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL, body)
	if err != nil {
		return response{Error: err.Error()}
	}
	if r.Body > 0 && !r.Chunked {
		req.ContentLength = r.Body
	}
	req.Close = r.Fresh
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	req.Host = r.Host
	resp, err := t.RoundTrip(req)
	if err != nil {
		return response{Error: err.Error(), Took: time.Since(begin)}
	}
	defer resp.Body.Close()
	out.Status, out.Header = resp.StatusCode, resp.Header
	var from io.Reader = resp.Body
	if r.Sum && r.Body == 0 {
		from = io.TeeReader(from, sum)
	}
	first, n, err := readSome(from, r.Lines)
	out.Sum = hex.EncodeToString(sum.Sum(nil))
	out.Trailer, out.Size, out.Body, out.Took = resp.Trailer, n, string(first), time.Since(begin)
	if err != nil {
		out.Error = err.Error()
	}
	_ = json.Unmarshal(first, &out.Seen)
	return out
}

// readSome reads a body to its end and gives its beginning, or the lines that
// have some text, and its length.
func readSome(body io.Reader, lines string) ([]byte, int64, error) {
	if lines == "" {
		var first bytes.Buffer
		n, err := io.Copy(&first, io.LimitReader(body, 4096))
		if err != nil {
			return first.Bytes(), n, err
		}
		m, err := io.Copy(io.Discard, body)
		return first.Bytes(), n + m, err
	}
	all, err := io.ReadAll(body)
	var some []byte
	for line := range bytes.Lines(all) {
		if bytes.Contains(line, []byte(lines)) {
			some = append(some, line...)
		}
	}
	return some, int64(len(all)), err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// random gives bytes that do not repeat themselves.
func random() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// sendUpgrade upgrades a connection and expects what it says to come back.
func sendUpgrade(r request) (out response) {
	host, path, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), "/")
	c, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		return response{Error: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nearly ", path, host, r.Upgrade)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return response{Error: err.Error()}
	}
	out.Status, out.Header = resp.StatusCode, resp.Header
	if resp.StatusCode != 101 {
		return out
	}
	fmt.Fprint(c, "and late")
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
	text, err := io.ReadAll(br)
	out.Body = string(text)
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// tcpClient says something after it has been greeted, or before.
func tcpClient(addr, say string) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	begin := time.Now()
	br := bufio.NewReader(c)
	greeting, err := br.ReadString('\n')
	if err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Fprintln(c, say)
	answer, err := br.ReadString('\n')
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response{Body: greeting + answer, Took: took})
}
