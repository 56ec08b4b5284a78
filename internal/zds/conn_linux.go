package zds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/internal/netns"
)

// Timeout bounds each step of the protocol: writing a packet, the hello, and
// waiting for an ack.
const Timeout = 5 * time.Second

// Room for more descriptors than any packet may carry, so that one too many is
// seen, and not only cut off.
const maxFDs = maxListeners + 4

// conn is a SOCK_SEQPACKET connection. One goroutine may send and one receive.
type conn struct {
	unix *net.UnixConn
	buf  [MaxPacket]byte
	oob  []byte
}

func newConn(c *net.UnixConn) *conn {
	return &conn{unix: c, oob: make([]byte, unix.CmsgSpace(maxFDs*4))}
}

func dialConn(ctx context.Context, path string) (*conn, error) {
	d := net.Dialer{Timeout: Timeout}
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to ZDS socket: %w", err)
	}
	return newConn(c.(*net.UnixConn)), nil
}

func (c *conn) close() { _ = c.unix.Close() }

// send writes one packet, with ns's descriptor unless ns is nil, and others after it.
func (c *conn) send(m proto.Message, ns *netns.Namespace, fds ...int) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if err := c.unix.SetWriteDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	if ns == nil {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		_, _, err = c.unix.WriteMsgUnix(b, oob, nil)
		return err
	}
	return ns.WithFD(func(fd int) error {
		_, _, err := c.unix.WriteMsgUnix(b, unix.UnixRights(append([]int{fd}, fds...)...), nil)
		return err
	})
}

// receive reads one packet. The caller owns the descriptors that came with it;
// with an error there are none. The bytes are valid until the next call. After
// an error that is not ErrMalformed the connection is of no more use.
func (c *conn) receive() (packet []byte, fds []int, err error) {
	n, oobn, flags, _, err := c.unix.ReadMsgUnix(c.buf[:], c.oob)
	fds = rights(c.oob[:oobn])
	switch {
	case err != nil:
	case n == 0:
		err = io.EOF
	case flags&unix.MSG_TRUNC != 0:
		err = malformed("larger than %d bytes", MaxPacket)
	case flags&unix.MSG_CTRUNC != 0:
		err = malformed("more than %d file descriptors", maxFDs)
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return c.buf[:n], fds, nil
}

// rights collects the descriptors that the kernel has installed.
func rights(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		// The kernel writes these headers, not the peer.
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ended tells an orderly end from a failure.
func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) }

func validUTF8(s string) string { return strings.ToValidUTF8(s, "") }
