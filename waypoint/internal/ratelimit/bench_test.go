package ratelimit

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/message"
)

func BenchmarkAllow(b *testing.B) {
	l, now := NewLocal(LocalConfig{Metrics: NewMetrics(prometheus.NewRegistry())}), time.Now()
	lim := limit(1000, time.Second, 0)
	b.Run("one key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Allow(lim, "10:default/a", now)
		}
	})
	b.Run("one key, everybody", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l.Allow(lim, "10:default/a", now)
			}
		})
	})
	keys := make([]string, 50_000)
	for i := range keys {
		keys[i] = "10:cluster.local/ns/default/sa/" + strconv.Itoa(i)
		l.Allow(lim, keys[i], now)
	}
	b.Run("50,000 keys, everybody", func(b *testing.B) {
		b.ReportAllocs()
		var n atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			for i := n.Add(7919); pb.Next(); i++ {
				l.Allow(lim, keys[i%uint64(len(keys))], now)
			}
		})
	})
	b.Run("a new key each time", func(b *testing.B) {
		l, at := NewLocal(LocalConfig{}), now
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			at = at.Add(time.Microsecond)
			l.Allow(lim, strconv.Itoa(i), at)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	l, now := New(Config{Registerer: prometheus.NewRegistry()}), time.Now()
	asks := []Ask{ask("all", "", 1000, time.Second), ask("each", "10:default/a", 1000, time.Second)}
	buf := make([]Verdict, 0, 4)
	b.Run("two local limits", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Check(b.Context(), asks, now.Add(time.Hour), buf)
			now = now.Add(time.Millisecond)
		}
	})
	out := l.Check(b.Context(), asks, now.Add(2*time.Hour), nil)
	fields := make(message.Fields, 0, 8)
	b.Run("headers", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := fields
			out.Headers(&f)
		}
	})
}
