package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// question is what "shop get" is asked to do.
type question struct {
	url    string
	header http.Header
	times  int
	trace  bool
	json   bool
}

// answers is what became of several requests.
type answers struct {
	Requests int            `json:"requests"`
	Statuses map[string]int `json:"statuses"`
	// Versions of the cart that took an order.
	Versions map[string]int `json:"versions,omitempty"`
	// RetryAfter is the longest pause, in seconds, that was asked for.
	RetryAfter string `json:"retryAfter,omitempty"`
	// Body of the last answer that was not 200, or of the last one.
	Body string `json:"body"`
	// Trace is the id of the trace of the last request.
	Trace string `json:"trace,omitempty"`
}

// atOnce is how many requests are under way at a time.
const atOnce = 4

// runGet fetches a page, once or several times.
func runGet(ctx context.Context) error {
	q, err := parseGet(os.Args[2:])
	if err != nil {
		return err
	}
	a := q.ask(ctx)
	switch {
	case q.json:
		err = json.NewEncoder(os.Stdout).Encode(a)
	case q.times == 1:
		_, err = io.WriteString(os.Stdout, a.Body)
	default:
		_, err = fmt.Println(a)
	}
	if q.trace && !q.json {
		fmt.Println("trace", a.Trace)
	}
	if err == nil {
		err = a.failure()
	}
	return err
}

// failure says what went wrong, unless nothing did.
func (all *answers) failure() error {
	ok := all.Statuses["200 OK"]
	switch {
	case ok == all.Requests:
		return nil
	case all.Requests > 1:
		return fmt.Errorf("%d of %d failed", all.Requests-ok, all.Requests)
	}
	text := tally(all.Statuses)
	if all.RetryAfter != "" {
		text += " (Retry-After: " + all.RetryAfter + ")"
	}
	return fmt.Errorf("%s", strings.TrimPrefix(text, "1 x "))
}

func parseGet(args []string) (question, error) {
	q := question{header: http.Header{}}
	f := flag.NewFlagSet("get", flag.ContinueOnError)
	f.IntVar(&q.times, "n", 1, "how many times; counts the answers if more than once")
	f.BoolVar(&q.trace, "trace", false, "have it recorded as a trace, and print the trace's id")
	f.BoolVar(&q.json, "json", false, "print what became of it as JSON")
	f.Func("H", "header `FIELD`, such as 'X-Group: testers'; repeatable", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("want NAME: VALUE")
		}
		q.header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	if err := f.Parse(args); err != nil {
		return q, err
	}
	if f.NArg() != 1 || q.times < 1 {
		return q, fmt.Errorf("usage: shop get [-n N] [-H FIELD] [-trace] [-json] URL")
	}
	q.url = f.Arg(0)
	return q, nil
}

// ask sends the requests, each over a connection of its own.
func (q question) ask(ctx context.Context) *answers {
	all := &answers{Requests: q.times, Statuses: map[string]int{}, Versions: map[string]int{}}
	client := perRequest(10 * time.Second)
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for range q.times {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			one := q.once(ctx, client)
			mu.Lock()
			defer mu.Unlock()
			all.add(one)
		})
	}
	wg.Wait()
	return all
}

// answer is that to one request.
type answer struct {
	status, version, retryAfter, body, trace string
}

func (q question) once(ctx context.Context, client *http.Client) (a answer) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url, nil)
	if err != nil {
		return answer{status: err.Error()}
	}
	req.Header = q.header.Clone()
	if q.trace {
		var id [24]byte
		_, _ = rand.Read(id[:]) // never fails
		a.trace = hex.EncodeToString(id[:16])
		// W3C Trace Context, version 00, with the flag "sampled".
		req.Header.Set("Traceparent", "00-"+a.trace+"-"+hex.EncodeToString(id[16:])+"-01")
	}
	resp, err := client.Do(req)
	if err != nil {
		a.status = err.Error()
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	a.status, a.body = resp.Status, string(body)
	if err != nil {
		a.status = err.Error()
	}
	a.version, a.retryAfter = resp.Header.Get(versionHeader), resp.Header.Get("Retry-After")
	return a
}

func (all *answers) add(a answer) {
	all.Statuses[a.status]++
	if a.version != "" {
		all.Versions[a.version]++
	}
	if len(a.retryAfter) > len(all.RetryAfter) || len(a.retryAfter) == len(all.RetryAfter) && a.retryAfter > all.RetryAfter {
		all.RetryAfter = a.retryAfter
	}
	if all.Body == "" || a.status != "200 OK" {
		all.Body = a.body
	}
	all.Trace = a.trace
}

// String is for people.
func (all *answers) String() string {
	text := tally(all.Statuses)
	if all.RetryAfter != "" {
		text += " (Retry-After: " + all.RetryAfter + ")"
	}
	if len(all.Versions) > 0 {
		text += "; cart " + tally(all.Versions)
	}
	return text
}

// tally gives counts by name.
func tally(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d x %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}
