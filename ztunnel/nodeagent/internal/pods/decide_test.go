package pods

import (
	"testing"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/ledger"
)

func TestDecide(t *testing.T) {
	const released, captured, draining = ledger.Released, ledger.Captured, ledger.Draining
	for _, tc := range []struct {
		name string
		f    facts
		want action
	}{
		{"wanted, but the namespace is not known", facts{Capture, released, false, false, false}, rest},
		{"new", facts{Capture, released, true, false, false}, hand},
		{"handed over", facts{Capture, released, true, true, false}, rest},
		{"listeners open", facts{Capture, released, true, true, true}, capture},
		{"captured", facts{Capture, captured, true, true, true}, capture},
		{"captured, after a restart", facts{Capture, captured, true, false, false}, hand},
		{"captured, ztunnel away", facts{Capture, captured, true, true, false}, capture},
		{"captured, nobody says anything", facts{Unknown, captured, true, true, false}, capture},
		{"captured, nobody says anything, after a restart", facts{Unknown, captured, true, false, false}, hand},
		{"captured, to be left", facts{Leave, captured, true, true, true}, stop},
		{"draining", facts{Leave, draining, true, true, true}, drain},
		{"draining, nobody says anything", facts{Unknown, draining, true, false, false}, drain},
		{"draining, wanted again", facts{Capture, draining, true, false, false}, hand},
		{"draining, wanted again, listeners open", facts{Capture, draining, true, true, true}, capture},
		{"left alone", facts{Leave, released, true, false, false}, rest},
		{"not known", facts{Unknown, released, true, false, false}, rest},
		{"changed its mind before the capture", facts{Leave, released, true, true, true}, withdraw},
		{"deleted before the capture", facts{Unknown, released, true, true, false}, withdraw},
	} {
		if got := decide(tc.f); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// Whatever happens, a captured pod is let go only because the control plane says
// so, and a pod that nobody wants is never captured.
func TestDecideNeverOversteps(t *testing.T) {
	for _, w := range []Wanted{Unknown, Capture, Leave} {
		for _, p := range []ledger.Phase{ledger.Released, ledger.Captured, ledger.Draining} {
			for i := range 8 {
				f := facts{w, p, i&1 != 0, i&2 != 0, i&4 != 0}
				got := decide(f)
				if got == stop && w != Leave {
					t.Errorf("%+v: released without a word", f)
				}
				if got == capture && w != Capture && (w == Leave || p != ledger.Captured) {
					t.Errorf("%+v: captured without a word", f)
				}
				if got == capture && p != ledger.Captured && !f.acked {
					t.Errorf("%+v: captured before the listeners are open", f)
				}
				if !f.here && got != rest {
					t.Errorf("%+v: acts without a namespace", f)
				}
			}
		}
	}
}
