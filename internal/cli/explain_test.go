package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

func TestAddressOfAService(t *testing.T) {
	for text, want := range map[string]explain.Query{
		"cart":                             {Service: "cart", Namespace: "here"},
		"cart:8080":                        {Service: "cart", Namespace: "here", Port: 8080},
		"cart.shop:8080":                   {Service: "cart", Namespace: "shop", Port: 8080},
		"cart.shop.svc.cluster.local:8080": {Service: "cart", Namespace: "shop", Port: 8080},
		"game.shop:7000/udp":               {Service: "game", Namespace: "shop", Port: 7000, Protocol: "UDP"},
		"game.shop:7000/TCP":               {Service: "game", Namespace: "shop", Port: 7000, Protocol: "TCP"},
	} {
		args := control.ExplainArgs{From: control.Target{Namespace: "here"}}
		if err := Address(text, &args); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if d := cmp.Diff(want, args.Query); d != "" {
			t.Errorf("%s: -want +got\n%s", text, d)
		}
	}
	for _, text := range []string{"", ":80", "cart:", "cart:http", "cart:0", "cart:70000", "cart:80/", "cart:80/sctp", "cart:/udp", "cart.shop.example.com"} {
		if err := Address(text, &control.ExplainArgs{}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestHeadersOfARequest(t *testing.T) {
	got, err := ParseHeaders([]string{"x-group: testers", "cookie:a=b:c"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]explain.Header{{Name: "x-group", Value: "testers"}, {Name: "cookie", Value: "a=b:c"}}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for _, text := range []string{"", "x", ":y"} {
		if _, err := ParseHeaders([]string{text}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
