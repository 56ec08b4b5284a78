package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// line is a connection to a server that speaks first and gives back what it gets.
type line struct {
	host string
	keep bool // one connection for all calls; when it is lost, all that follow fail

	conn     net.Conn
	in       *bufio.Reader
	greeting string
}

// call says something and gets it back.
func (l *line) call(ctx context.Context) (string, error) {
	if l.conn == nil {
		if err := l.open(ctx); err != nil {
			return "", err
		}
	}
	if !l.keep {
		defer func() { l.close(); l.conn = nil }()
	}
	if err := l.deadline(ctx); err != nil {
		return "", err
	}
	const said = "what the client says\n"
	if _, err := io.WriteString(l.conn, said); err != nil {
		return "", err
	}
	back, err := l.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("echo: %w", err)
	}
	if back != said {
		return "", fmt.Errorf("echo: %q came back as %q", said, back)
	}
	return answer1("tcp://"+l.host, l.greeting), nil
}

// open takes the server's first line.
func (l *line) open(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.host)
	if err != nil {
		return err
	}
	l.conn, l.in = conn, bufio.NewReader(conn)
	if err := l.deadline(ctx); err != nil {
		return err
	}
	if l.greeting, err = l.in.ReadString('\n'); err != nil {
		l.close()
		l.conn = nil
		return fmt.Errorf("greeting: %w", err)
	}
	return nil
}

func (l *line) deadline(ctx context.Context) error {
	at, _ := ctx.Deadline()
	return l.conn.SetDeadline(at)
}

func (l *line) close() {
	if l.conn != nil {
		l.conn.Close()
	}
}

// answer1 shows the fields of a server's line as those of an answer over HTTP.
func answer1(url, fields string) string {
	return "Url=" + url + "\nStatusCode=200\n" + bodyMark + strings.ReplaceAll(strings.TrimSpace(fields), " ", "\n"+bodyMark)
}

// sendAgain is when a datagram that was not answered is sent again, as applications have to.
const sendAgain = time.Second

// udp sends a datagram, until it is answered, and takes the answer.
func (r request) udp(ctx context.Context) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", r.url.Host)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	said := r.url.Query().Get("say") + " " + time.Now().Format(time.RFC3339Nano)
	buf := make([]byte, 64<<10)
	for {
		if _, err := io.WriteString(conn, said); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(sendAgain)); err != nil {
			return "", err
		}
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return "", err
		}
		fields, back, _ := strings.Cut(string(buf[:n]), "\n")
		if back != said {
			return "", fmt.Errorf("echo: %q came back as %q", said, back)
		}
		return answer1(r.url.String(), fields), nil
	}
}

// dns asks for the addresses of a name.
func (r request) dns(ctx context.Context) (string, error) {
	all, err := net.DefaultResolver.LookupHost(ctx, r.url.Host)
	if err != nil {
		return "", err
	}
	slices.Sort(all)
	return answer1(r.url.String(), "Address="+strings.Join(all, " Address=")), nil
}
