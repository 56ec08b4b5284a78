package ratelimit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/message"
)

func TestHeaders(t *testing.T) {
	v := func(rule string, ok bool, remaining uint64, reset time.Duration) Verdict {
		return Verdict{Policy: "shop/l", Rule: rule, OK: ok, Limit: 100, Window: time.Minute, Remaining: remaining, Reset: reset}
	}
	refused := func(rule string, wait time.Duration) Verdict {
		r := v(rule, false, 0, wait)
		r.RetryAfter = wait
		return r
	}
	for _, c := range []struct {
		name string
		in   []Verdict
		want message.Fields
	}{
		{"none", nil, nil},
		{"one", []Verdict{v("a", true, 7, 1500*time.Millisecond)}, message.Fields{
			{Name: "ratelimit-policy", Value: `"shop/l/a";q=100;w=60`}, {Name: "ratelimit", Value: `"shop/l/a";r=7;t=2`},
		}},
		{"the one with the least left", []Verdict{v("a", true, 7, time.Second), v("b", true, 3, time.Second), v("c", true, 3, 2*time.Second)}, message.Fields{
			{Name: "ratelimit-policy", Value: `"shop/l/a";q=100;w=60, "shop/l/b";q=100;w=60, "shop/l/c";q=100;w=60`}, {Name: "ratelimit", Value: `"shop/l/c";r=3;t=2`},
		}},
		{"the one that refuses for longest", []Verdict{refused("a", 100*time.Millisecond), v("b", true, 0, time.Hour), refused("c", 5*time.Second)}, message.Fields{
			{Name: "ratelimit-policy", Value: `"shop/l/a";q=100;w=60, "shop/l/b";q=100;w=60, "shop/l/c";q=100;w=60`},
			{Name: "ratelimit", Value: `"shop/l/c";r=0;t=5`},
			{Name: "retry-after", Value: "5"},
		}},
		{"less than a second", []Verdict{{Policy: "p", OK: true, Limit: 10, Window: 100 * time.Millisecond, Remaining: 9, Reset: time.Millisecond}}, message.Fields{
			{Name: "ratelimit-policy", Value: `"p";q=100;w=1`}, {Name: "ratelimit", Value: `"p";r=9;t=1`},
		}},
		{"not whole seconds", []Verdict{{Policy: "p", OK: true, Limit: 10, Window: 1500 * time.Millisecond, Remaining: 9}}, message.Fields{
			{Name: "ratelimit-policy", Value: `"p";q=13;w=2`}, {Name: "ratelimit", Value: `"p";r=9;t=0`},
		}},
		{"numbers unknown", []Verdict{{Policy: "p", OK: true}}, nil},
		{"refused, numbers unknown", []Verdict{{Policy: "p"}}, message.Fields{{Name: "retry-after", Value: "1"}}},
		{"known before unknown", []Verdict{{Policy: "p", OK: true}, v("a", true, 7, 0)}, message.Fields{
			{Name: "ratelimit-policy", Value: `"shop/l/a";q=100;w=60`}, {Name: "ratelimit", Value: `"shop/l/a";r=7;t=0`},
		}},
		{"nothing is let through, ever", []Verdict{{Policy: "p", Window: time.Minute}}, message.Fields{
			{Name: "ratelimit-policy", Value: `"p";q=0;w=60`}, {Name: "ratelimit", Value: `"p";r=0;t=0`}, {Name: "retry-after", Value: "60"},
		}},
		{"hostile name", []Verdict{{Policy: "a\"b\\c\r\nx: é", OK: true, Limit: 1, Window: time.Second}}, message.Fields{
			{Name: "ratelimit-policy", Value: `"a\"b\\c??x: ??";q=1;w=1`}, {Name: "ratelimit", Value: `"a\"b\\c??x: ??";r=0;t=0`},
		}},
		{"numbers that structured fields cannot hold", []Verdict{{Policy: "p", OK: true, Limit: 1 << 63, Window: time.Second, Remaining: 1 << 63}}, message.Fields{
			{Name: "ratelimit-policy", Value: `"p";q=999999999999999;w=1`}, {Name: "ratelimit", Value: `"p";r=999999999999999;t=0`},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got message.Fields
			Headers(&got, c.in)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The fields of the service itself stay.
func TestHeadersAppend(t *testing.T) {
	got := message.Fields{{Name: "ratelimit", Value: `"own";r=1`}}
	Headers(&got, []Verdict{{Policy: "p", OK: true, Limit: 1, Window: time.Second}})
	if s, _ := got.Joined("ratelimit"); s != `"own";r=1,"p";r=0;t=0` {
		t.Error(s)
	}
}
