package netns_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Ports of the probe's server. What it does on each is the name of the check.
var servers = map[string]struct {
	port  int
	serve func(*net.TCPConn)
}{
	"echo":        {8080, serveEcho},
	"greeting":    {8081, serveGreeting},
	"halfclose":   {8082, serveHalfClose},
	"whoami":      {8083, serveWhoAmI},
	"reset":       {8084, serveReset},
	"holdthenend": {8085, serveHold},
	"source":      {8086, serveSource},
	"clientreset": {8088, serveClientReset},
}

// fullPort is where nothing is ever accepted and whose queue is full: whoever
// connects gets no answer, as from a host that is gone.
const fullPort = 8087

func probeServe() error {
	if err := errors.Join(serveFull(), serveDatagrams()); err != nil {
		return err
	}
	for _, s := range servers {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", s.port))
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					s.serve(c.(*net.TCPConn))
				}()
			}
		}()
	}
	select {}
}

func serveEcho(c *net.TCPConn) {
	if _, err := io.Copy(c, struct{ io.Reader }{c}); err == nil {
		_ = c.CloseWrite()
	}
}

func serveGreeting(c *net.TCPConn) {
	_, _ = c.Write([]byte("220 ready\r\n"))
	serveEcho(c)
}

func serveHalfClose(c *net.TCPConn) {
	h := sha256.New()
	n, _ := io.Copy(h, c)
	fmt.Fprintf(c, "%d %s", n, hex.EncodeToString(h.Sum(nil)))
}

func serveWhoAmI(c *net.TCPConn) {
	at := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	_, _ = c.Write([]byte(at.Addr().Unmap().String()))
}

func serveReset(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 1))
	_ = c.SetLinger(0)
}

// serveHold answers each byte and keeps the connection.
func serveHold(c *net.TCPConn) { serveEcho(c) }

// resets counts the connections that serveClientReset saw reset.
var resets atomic.Int64

// serveClientReset says how many connections were reset so far, and waits for the end
// of this one.
func serveClientReset(c *net.TCPConn) {
	fmt.Fprintf(c, "%d\n", resets.Load())
	if _, err := io.Copy(io.Discard, c); errors.Is(err, syscall.ECONNRESET) {
		resets.Add(1)
	}
}

// serveSource sends until nobody takes it any more.
func serveSource(c *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// serveFull fills the queue of fullPort.
func serveFull() error {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet6{Port: fullPort})
	}
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	for err == nil {
		_, err = net.DialTimeout("tcp", fmt.Sprintf("localhost:%d", fullPort), 500*time.Millisecond)
	}
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		return fmt.Errorf("fill the queue of port %d: %w", fullPort, err)
	}
	return nil
}
