package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Server answers from a zone that can be replaced at any time.
type Server struct {
	zone    atomic.Pointer[Zone]
	servers []*dns.Server
}

// Listen opens port 53 of each address, over UDP and TCP.
func Listen(addrs ...netip.Addr) (*Server, error) { return ListenOn(53, addrs...) }

// ListenOn opens another port; with 0 the system chooses, see Addrs.
func ListenOn(port uint16, addrs ...netip.Addr) (*Server, error) {
	s := &Server{}
	s.zone.Store(NewZone("cluster.local", nil, nil))
	for _, a := range addrs {
		if err := s.listen(netip.AddrPortFrom(a, port).String()); err != nil {
			return nil, errors.Join(fmt.Errorf("DNS server: %w", err), s.close())
		}
	}
	return s, nil
}

func (s *Server) listen(addr string) error {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	s.servers = append(s.servers, &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.serve)})
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.servers = append(s.servers, &dns.Server{Listener: l, Handler: dns.HandlerFunc(s.serve)})
	return nil
}

func (s *Server) close() error {
	var errs []error
	for _, srv := range s.servers {
		if srv.PacketConn != nil {
			errs = append(errs, srv.PacketConn.Close())
		} else {
			errs = append(errs, srv.Listener.Close())
		}
	}
	return errors.Join(errs...)
}

// Addrs gives the addresses that the server listens on, for each of Listen's
// first UDP and then TCP.
func (s *Server) Addrs() []net.Addr {
	var all []net.Addr
	for _, srv := range s.servers {
		if srv.PacketConn != nil {
			all = append(all, srv.PacketConn.LocalAddr())
		} else {
			all = append(all, srv.Listener.Addr())
		}
	}
	return all
}

// Set replaces the zone.
func (s *Server) Set(z *Zone) { s.zone.Store(z) }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, len(s.servers))
	for _, srv := range s.servers {
		go func() { done <- srv.ActivateAndServe() }()
	}
	var err error
	running := len(s.servers)
	select {
	case <-ctx.Done():
	case err = <-done:
		running--
	}
	for _, srv := range s.servers {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		if srv.ShutdownContext(grace) != nil {
			// It was not serving yet, or an exchange hangs.
			err = errors.Join(err, s.closeOne(srv))
		}
		cancel()
	}
	for range running {
		// What they say of an end that was asked for is of no interest.
		if e := <-done; ctx.Err() == nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (s *Server) closeOne(srv *dns.Server) error {
	var err error
	if srv.PacketConn != nil {
		err = srv.PacketConn.Close()
	} else {
		err = srv.Listener.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) serve(w dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	reply.Compress = true
	switch {
	case query.Opcode != dns.OpcodeQuery:
		reply.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1:
		reply.Rcode = dns.RcodeFormatError
	default:
		s.zone.Load().Answer(reply, query.Question[0])
		rand.Shuffle(len(reply.Answer), func(i, j int) {
			// CNAME records stay in front of what they lead to.
			if reply.Answer[i].Header().Rrtype == reply.Answer[j].Header().Rrtype {
				reply.Answer[i], reply.Answer[j] = reply.Answer[j], reply.Answer[i]
			}
		})
	}
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = max(size, min(int(opt.UDPSize()), 1232))
			reply.SetEdns0(1232, false)
		}
	}
	reply.Truncate(size)
	// A client that is gone needs no answer.
	_ = w.WriteMsg(reply)
}
