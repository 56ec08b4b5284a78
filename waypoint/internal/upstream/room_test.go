package upstream

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// bounded is a cluster of which connections and those who wait are bounded.
func bounded(connections, pending uint32) *Cluster {
	s := NewSet(Config{})
	s.SetPolicy("ns/svc", &waypoint.Backend{CircuitBreaker: &waypoint.CircuitBreaker{MaxConnections: connections, MaxPending: pending}})
	return s.Cluster("ns/svc", 80)
}

func never() bool { return false }

// Those who wait get what others leave, one each, and are refused beyond the bound.
func TestRoomIsGivenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bounded(1, 2)
		if ok, err := c.reserve(t.Context(), never); !ok || err != nil {
			t.Fatal(ok, err)
		}
		got := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.reserve(t.Context(), never)
				got <- err
			}()
		}
		synctest.Wait()
		if _, err := c.reserve(t.Context(), never); !errors.Is(err, ErrOverloaded) {
			t.Errorf("a third that waits: %v", err)
		}
		for range 2 {
			select {
			case err := <-got:
				t.Fatalf("there is no room yet: %v", err)
			default:
			}
			c.room.leave()
			synctest.Wait()
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
	})
}

// Who was woken and goes away wakes the next.
func TestRoomOfOneWhoGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bounded(1, 2)
		if ok, err := c.reserve(t.Context(), never); !ok || err != nil {
			t.Fatal(ok, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, err := c.reserve(ctx, never); first <- err }()
		synctest.Wait()
		go func() { _, err := c.reserve(t.Context(), never); second <- err }()
		synctest.Wait()
		cancel()
		c.room.leave()
		errs := [2]error{<-first, <-second}
		if errs[0] == nil {
			c.room.leave()
		}
		if errs[1] != nil {
			t.Errorf("the one that waits: %v", errs[1])
		}
	})
}

// A connection that is given back serves who waits, without another one.
func TestRoomInWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bounded(1, 1)
		if ok, err := c.reserve(t.Context(), never); !ok || err != nil {
			t.Fatal(ok, err)
		}
		there, got := false, make(chan bool, 1)
		go func() {
			reserved, _ := c.reserve(t.Context(), func() bool { return there })
			got <- reserved
		}()
		synctest.Wait()
		there = true
		c.room.wake()
		if <-got {
			t.Error("a second connection was reserved")
		}
	})
}
