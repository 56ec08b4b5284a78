package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	echoPort = 7000
	sinkPort = 7001
)

// serve echoes on one port, and on another counts and answers one byte at the end.
func serve(ctx context.Context, _ []string) error {
	if err := serveDatagrams(ctx); err != nil {
		return err
	}
	return listenAll(ctx, map[string]func(net.Conn){
		fmt.Sprintf(":%d", echoPort): func(c net.Conn) {
			buf := make([]byte, 4<<10)
			for {
				n, err := c.Read(buf)
				if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		},
		fmt.Sprintf(":%d", sinkPort): func(c net.Conn) {
			buf := make([]byte, 256<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					break
				}
			}
			_, _ = c.Write([]byte{1})
		},
	})
}

func listenAll(ctx context.Context, handlers map[string]func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for addr, h := range handlers {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					h(c)
				}()
			}
		}()
	}
	return nil
}

// relay carries connections to another address, plainly or with one mutually
// authenticated TLS 1.3 connection for each: what a straightforward proxy does. As
// a proxy that an application does not know of, it may take connections from a
// redirect rule.
func relay(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("relay", flag.ContinueOnError)
	listen := f.String("listen", "", "address")
	to := f.String("to", "", "address")
	side := f.String("tls", "", "client or server: the side that is encrypted")
	dir := f.String("certs", "", "folder with cert.pem and key.pem")
	port := f.Uint("redirect", 0, "port whose connections are redirected here")
	if err := f.Parse(args); err != nil {
		return err
	}
	var cfg *tls.Config
	if *side != "" {
		var err error
		if cfg, err = relayTLS(*dir); err != nil {
			return err
		}
	}
	if *port != 0 {
		if err := redirect(uint16(*port), *listen); err != nil {
			return err
		}
	}
	dialer := net.Dialer{Control: marked}
	return listenAll(ctx, map[string]func(net.Conn){*listen: func(c net.Conn) {
		up, err := dialer.DialContext(ctx, "tcp", *to)
		if err != nil {
			return
		}
		defer up.Close()
		switch *side {
		case "client":
			up = tls.Client(up, cfg)
		case "server":
			c = tls.Server(c, cfg)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			pipe(up, c)
		}()
		pipe(c, up)
		<-done
	}})
}

func pipe(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if cw, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		_ = cw.CloseWrite()
		return
	}
	_ = dst.Close()
	_ = src.Close()
}

func relayTLS(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		return nil, errors.Join(err, errors.New("no certificate"))
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: roots, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		ServerName: "relay", MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	}, nil
}

// writeCerts makes what relayTLS reads.
func writeCerts(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"relay"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600),
	)
}
