package waypoint_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"secure.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// interopCases are gRPC's interoperability test cases, by their names there.
var interopCases = map[string]func(context.Context, testgrpc.TestServiceClient, *grpc.ClientConn){
	"empty_unary":             rpc(interop.DoEmptyUnaryCall),
	"large_unary":             rpc(interop.DoLargeUnaryCall),
	"client_streaming":        rpc(interop.DoClientStreaming),
	"server_streaming":        rpc(interop.DoServerStreaming),
	"ping_pong":               rpc(interop.DoPingPong),
	"empty_stream":            rpc(interop.DoEmptyStream),
	"timeout_on_sleeping":     rpc(interop.DoTimeoutOnSleepingServer),
	"cancel_after_begin":      rpc(interop.DoCancelAfterBegin),
	"cancel_after_first":      rpc(interop.DoCancelAfterFirstResponse),
	"custom_metadata":         rpc(interop.DoCustomMetadata),
	"status_code_and_message": rpc(interop.DoStatusCodeAndMessage),
	"special_status_message":  rpc(interop.DoSpecialStatusMessage),
	"unimplemented_service": func(ctx context.Context, _ testgrpc.TestServiceClient, cc *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	},
	"unimplemented_method": func(ctx context.Context, _ testgrpc.TestServiceClient, cc *grpc.ClientConn) {
		interop.DoUnimplementedMethod(ctx, cc)
	},
}

func rpc(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, testgrpc.TestServiceClient, *grpc.ClientConn) {
	return func(ctx context.Context, c testgrpc.TestServiceClient, _ *grpc.ClientConn) { do(ctx, c) }
}

// interopClient runs cases; one that fails ends the process.
func interopClient(addr string, cases []string) error {
	cc, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	c := testgrpc.NewTestServiceClient(cc)
	for _, name := range cases {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		fmt.Fprintln(os.Stderr, name)
		interopCases[name](ctx, c, cc)
		cancel()
	}
	return json.NewEncoder(os.Stdout).Encode(response{Status: 200})
}

// loadSpec is a load that goes on until the input behind it ends.
type loadSpec struct {
	URL     string `json:"url"`
	Clients int    `json:"clients"`
	HTTP2   bool   `json:"http2"`
}

// loaded is what became of it.
type loaded struct {
	Requests int            `json:"requests"`
	Failures map[string]int `json:"failures"`
	Versions map[string]int `json:"versions"`
	Stamps   []stated       `json:"stamps"` // of answers that say which state gave them
}

// loadBegun is what load prints once a request has been answered.
const loadBegun = "begun"

func load(in io.Reader, out io.Writer) error {
	var spec loadSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	t := transport(spec.HTTP2)
	t.MaxIdleConnsPerHost = spec.Clients
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	total := loaded{Failures: map[string]int{}, Versions: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range spec.Clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				r := once(t, request{URL: spec.URL})
				mu.Lock()
				if state, err := strconv.Atoi(r.Header.Get("x-state")); err == nil {
					total.Stamps = append(total.Stamps, stated{begin, state})
				}
				if total.Requests++; total.Requests == 1 {
					fmt.Fprintln(out, loadBegun)
				}
				if r.Error != "" || r.Status != http.StatusOK {
					total.Failures[fmt.Sprintf("%d %s %s", r.Status, r.Error, r.Header.Get("proxy-status"))]++
				}
				total.Versions[r.Header.Get("x-version")]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return json.NewEncoder(out).Encode(total)
}
