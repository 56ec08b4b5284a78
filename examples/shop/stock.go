package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// greeting is what the stock says first, before it is asked anything.
const greeting = "220 Welcome to the stock of the ambit example shop\n"

// runStock serves a protocol in which the server speaks first.
func runStock(ctx context.Context) error {
	l, err := net.Listen("tcp", setting("LISTEN", ":9000"))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		time.Sleep(drain)
		l.Close()
	})
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		open.Go(func() {
			defer conn.Close()
			// A client that went away is its own affair.
			_ = serveStock(conn)
		})
	}
}

func serveStock(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(greeting)); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		sku, ok := strings.CutPrefix(lines.Text(), "COUNT ")
		answer := "500 say COUNT and a product"
		if ok {
			answer = fmt.Sprintf("250 %d", 17+len(sku))
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
