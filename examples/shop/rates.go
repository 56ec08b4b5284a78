package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// maxRate is the longest question or answer, in bytes.
const maxRate = 512

// rates are US dollars and others for one euro.
var rates = map[string]string{"USD": "1.0842", "CHF": "0.9411", "JPY": "163.27"}

// runRates answers questions for rates, a datagram for a datagram.
func runRates(ctx context.Context) error {
	conn, err := net.ListenPacket("udp", setting("LISTEN", ":9100"))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		time.Sleep(drain)
		conn.Close()
	})
	defer stop()
	b := make([]byte, maxRate)
	for {
		n, from, err := conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := "ERROR say RATE and a currency"
		if name, ok := strings.CutPrefix(string(b[:n]), "RATE "); ok {
			answer = "ERROR no rate of " + name
			if rate := rates[name]; rate != "" {
				answer = fmt.Sprintf("RATE one euro is %s %s today", rate, name)
			}
		}
		// Who asked and is gone is its own affair.
		_, _ = conn.WriteTo([]byte(answer), from)
	}
}

// askRate asks as often as it takes: a datagram may be lost.
func askRate(ctx context.Context, address, name string) (string, error) {
	const tries, patience = 4, 500 * time.Millisecond
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	b := make([]byte, maxRate)
	for range tries {
		if err = conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return "", err
		}
		if _, err = conn.Write([]byte("RATE " + name)); err != nil {
			return "", err
		}
		var n int
		if n, err = conn.Read(b); err == nil {
			answer, ok := strings.CutPrefix(string(b[:n]), "RATE ")
			if !ok {
				return "", fmt.Errorf("answer %q", b[:n])
			}
			return answer, nil
		}
	}
	return "", fmt.Errorf("asked %d times: %w", tries, err)
}
