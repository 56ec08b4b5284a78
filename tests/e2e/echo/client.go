package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// request is what the client is asked to do.
type request struct {
	url      *url.URL
	method   string
	headers  []string
	count    int
	timeout  time.Duration
	duration time.Duration
	every    time.Duration
	retry    time.Duration
	keep     bool
	untilEOF bool
}

// errStatus is a call that was answered with a failure. It is printed like any other answer.
var errStatus = errors.New("status")

func call(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	r, err := parse(args)
	if err != nil {
		return err
	}
	do, done, err := r.caller()
	if err != nil {
		return err
	}
	defer done()
	if r.untilEOF || r.duration > 0 {
		return r.load(ctx, do, in, out)
	}
	for i := range r.count {
		text, err := r.insist(ctx, do)
		if err != nil && !errors.Is(err, errStatus) {
			return fmt.Errorf("request %d: %w", i, err)
		}
		print1(out, i, text)
	}
	return nil
}

func parse(args []string) (request, error) {
	var r request
	f := pflag.NewFlagSet("client", pflag.ContinueOnError)
	f.StringVar(&r.method, "method", http.MethodGet, "method")
	f.StringArrayVarP(&r.headers, "header", "H", nil, "header, as name:value")
	f.IntVar(&r.count, "count", 1, "how many requests")
	f.DurationVar(&r.timeout, "timeout", 10*time.Second, "time for each request")
	f.DurationVar(&r.duration, "duration", 0, "send requests for so long, and print only how many there were and which failed")
	f.DurationVar(&r.every, "interval", 10*time.Millisecond, "with --duration, between requests")
	f.BoolVar(&r.untilEOF, "until-eof", false, "the same until the standard input ends")
	f.DurationVar(&r.retry, "retry", 0, "for so long, try again what failed")
	f.BoolVar(&r.keep, "keep-alive", false, "use connections again; of tcp, one for all")
	if err := f.Parse(args); err != nil {
		return request{}, err
	}
	if f.NArg() != 1 {
		return request{}, errors.New("name one URL: http://, https://, grpc://, tcp://, udp:// or dns://")
	}
	u, err := url.Parse(f.Arg(0))
	if err != nil {
		return request{}, err
	}
	r.url = u
	for _, h := range r.headers {
		if !strings.Contains(h, ":") {
			return request{}, fmt.Errorf("header %q is not of the form name:value", h)
		}
	}
	return r, nil
}

// caller gives what makes one call, and what ends its connections.
func (r request) caller() (do func(context.Context) (string, error), done func(), err error) {
	switch r.url.Scheme {
	case "http", "https":
		t := &http.Transport{DisableKeepAlives: !r.keep, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		c := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		return func(ctx context.Context) (string, error) { return r.http(ctx, c) }, t.CloseIdleConnections, nil
	case "grpc":
		conn, err := grpc.NewClient("passthrough:///"+r.url.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) (string, error) { return r.grpc(ctx, conn) }, func() { conn.Close() }, nil
	case "tcp":
		l := &line{host: r.url.Host, keep: r.keep}
		return l.call, l.close, nil
	case "udp":
		return r.udp, func() {}, nil
	case "dns":
		return r.dns, func() {}, nil
	}
	return nil, nil, fmt.Errorf("%s: unknown scheme: it is http, https, grpc, tcp, udp or dns", r.url)
}

// insist calls until there is an answer, for as long as it may.
func (r request) insist(ctx context.Context, do func(context.Context) (string, error)) (string, error) {
	end := time.Now().Add(r.retry)
	for {
		text, err := r.once(ctx, do)
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return text, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.every):
		}
	}
}

func (r request) once(ctx context.Context, do func(context.Context) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return do(ctx)
}

func (r request) http(ctx context.Context, c *http.Client) (string, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), http.NoBody)
	if err != nil {
		return "", err
	}
	for _, h := range r.headers {
		name, value, _ := strings.Cut(h, ":")
		if strings.EqualFold(name, "Host") {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	out := []string{"Url=" + r.url.String(), fmt.Sprintf("StatusCode=%d", resp.StatusCode)}
	for _, name := range names(resp.Header) {
		for _, v := range resp.Header[name] {
			out = append(out, "ResponseHeader="+name+":"+v)
		}
	}
	for line := range strings.Lines(string(body)) {
		out = append(out, bodyMark+strings.TrimRight(line, "\r\n"))
	}
	text := strings.Join(out, "\n")
	if resp.StatusCode >= http.StatusBadRequest {
		return text, fmt.Errorf("%w %d", errStatus, resp.StatusCode)
	}
	return text, nil
}

// bodyMark goes before what the server said.
const bodyMark = "body] "

func (r request) grpc(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	for _, h := range r.headers {
		name, value, _ := strings.Cut(h, ":")
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	var got wrapperspb.StringValue
	if err := conn.Invoke(ctx, method, &emptypb.Empty{}, &got); err != nil {
		return "", err
	}
	// The suite expects the status of HTTP for the call too.
	out := []string{"Url=" + r.url.String(), "StatusCode=200"}
	for line := range strings.Lines(got.Value) {
		out = append(out, bodyMark+strings.TrimRight(line, "\n"))
	}
	return strings.Join(out, "\n"), nil
}

// print1 prints an answer, and a blank line after it.
func print1(out io.Writer, i int, text string) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, bodyMark); ok {
			fmt.Fprintf(out, "[%d %s%s\n", i, bodyMark, strings.TrimSpace(rest))
		} else {
			fmt.Fprintf(out, "[%d] %s\n", i, strings.TrimSpace(line))
		}
	}
	fmt.Fprintln(out)
}

// load calls one after the other for a time. It fails if a call failed.
func (r request) load(ctx context.Context, do func(context.Context) (string, error), in io.Reader, out io.Writer) error {
	end := make(chan struct{})
	if r.untilEOF {
		go func() {
			defer close(end)
			_, _ = io.Copy(io.Discard, in)
		}()
	} else {
		timer := time.AfterFunc(r.duration, func() { close(end) })
		defer timer.Stop()
	}
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	all, failed := 0, 0
	report := func() error {
		fmt.Fprintf(out, "Requests=%d\nFailed=%d\n", all, failed)
		if failed > 0 {
			return fmt.Errorf("%d of %d requests failed", failed, all)
		}
		return nil
	}
	for {
		all++
		if _, err := r.once(ctx, do); err != nil {
			failed++
			fmt.Fprintf(out, "%s Error=%v\n", time.Now().UTC().Format(time.RFC3339Nano), err)
		}
		select {
		case <-ctx.Done():
			return report()
		case <-end:
			return report()
		case <-tick.C:
		}
	}
}
