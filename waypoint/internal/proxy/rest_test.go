package proxy

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/masque"
)

// A session whose client is asked to go elsewhere ends when nothing has moved for a
// moment, later where an answer may be on its way, and not before it is asked.
func TestRest(t *testing.T) {
	type step struct {
		after  time.Duration
		answer bool
	}
	for name, tc := range map[string]struct {
		before []step        // what moves until the client is asked, each after a pause
		asked  time.Duration // the pause until it is
		then   []step
		want   time.Duration // from being asked to the end
	}{
		"long at rest":               {[]step{{0, false}, {0, true}}, time.Minute, nil, 0},
		"just answered":              {[]step{{0, false}, {0, true}}, 0, nil, restAnswered},
		"answered a moment ago":      {[]step{{0, true}}, restAnswered / 5, nil, restAnswered - restAnswered/5},
		"not answered":               {[]step{{0, true}, {0, false}}, time.Second, nil, restAsked - time.Second},
		"answered afterwards":        {[]step{{0, false}}, 0, []step{{time.Second, true}}, time.Second + restAnswered},
		"nothing has moved":          {nil, time.Second, nil, restAsked - time.Second},
		"goes on, and then does not": {nil, 0, []step{{restAsked - 1, true}, {restAnswered - 1, true}, {restAnswered - 2, true}}, restAsked - 1 + 2*restAnswered - 3 + restAnswered},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan time.Time, 2)
				idle := watchIdle("", time.Hour, nil)
				defer idle.stop()
				r := &rest{idle: idle, end: func() { ended <- time.Now() }}
				defer r.stop()
				play := func(steps []step) {
					for _, s := range steps {
						time.Sleep(s.after)
						r.moved(s.answer)
					}
				}
				play(tc.before)
				time.Sleep(tc.asked)
				if len(ended) > 0 {
					t.Fatal("ended before its client was asked")
				}
				asked := time.Now()
				r.Drain()
				r.Drain()
				play(tc.then)
				if took := (<-ended).Sub(asked); took != tc.want {
					t.Errorf("ended after %s, want %s", took, tc.want)
				}
				time.Sleep(time.Minute)
				if len(ended) > 0 {
					t.Error("ended twice")
				}
			})
		})
	}
}

// What has ended by itself is not ended again.
func TestRestStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := watchIdle("", time.Hour, nil)
		defer idle.stop()
		r := &rest{idle: idle, end: func() { t.Error("ended after it was stopped") }}
		r.Drain()
		r.stop()
		r.Drain()
		time.Sleep(time.Minute)
	})
}

// A session at rest does not hold up a waypoint that stops: its client's node is told
// that it has ended, and nothing has failed. One that begins then ends like it.
func TestDrainEndsSessionsAtRest(t *testing.T) {
	b := newUDPBed(t, 2)
	cc := b.tls("client")
	before, err := b.open(cc)
	if err != nil {
		t.Fatal(err)
	}
	b.proxy.Drain()
	after, err := b.open(cc)
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]io.Reader{"before": before, "while it stops": after} {
		if p, err := masque.NewCapsuleReader(s).Next(); !errors.Is(err, io.EOF) {
			t.Errorf("a session that was opened %s: %q, %v, want its end", what, p, err)
		}
	}
	b.logged("both are in the log", func(line map[string]any) bool {
		if why, failed := line["error"]; failed {
			t.Errorf("logged: %v", why)
		}
		return len(b.access.all) == 2
	})
}
