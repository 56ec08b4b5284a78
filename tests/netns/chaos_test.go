package netns_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// chaosEnv is for how long TestChaos goes on; chaosShort if it is not set.
	chaosEnv   = "AMBIT_TEST_CHAOS"
	chaosShort = 40 * time.Second
	// chaosSeedEnv has TestChaos do again what it did with the seed that it printed.
	chaosSeedEnv = "AMBIT_TEST_CHAOS_SEED"
)

// fault is something that is taken away: a component that is killed, hung (it
// exists and does nothing) or replaced, or a link that is cut.
type fault struct{ what, how string }

func (f fault) String() string { return f.what + " " + f.how }

// Links that can be cut: the one between the nodes, and those to the control plane.
const (
	linkNodes   = "link n1-n2"
	linkControl = "link to controlplane of " // and the node
)

// faults are all that there are.
var faults = []fault{
	{"controlplane", "killed"},
	{"controlplane", "hung"},
	{"n1/nodeagent", "killed"},
	{"n1/nodeagent", "hung"},
	{"n2/nodeagent", "killed"},
	{"n2/nodeagent", "hung"},
	{"n1/ztunnel", "killed"},
	{"n1/ztunnel", "hung"},
	{"n1/ztunnel", "replaced"},
	{"n2/ztunnel", "killed"},
	{"n2/ztunnel", "hung"},
	{"n2/ztunnel", "replaced"},
	{linkNodes, "cut"},
	{linkControl + "n1", "cut"},
	{linkControl + "n2", "cut"},
}

// step is what is taken away at a time, and for how long what does not come back by
// itself stays away.
type step struct {
	faults []fault
	away   time.Duration
}

const (
	longestAway = 3 * time.Second
	// tooLong is when what was to be away for longestAway at most proves nothing any
	// more: this machine took so long to give it back that connections were given up,
	// which they are after 10 s.
	tooLong = 8 * time.Second
)

// nextStep is the next of those that belong to a seed.
func nextStep(r *rand.Rand) step {
	order := r.Perm(len(faults))
	s := step{faults: []fault{faults[order[0]]}, away: time.Duration(r.Int64N(int64(longestAway))).Round(time.Millisecond)}
	if other := faults[order[1]]; r.IntN(2) == 0 && other.what != s.faults[0].what {
		s.faults = append(s.faults, other)
	}
	return s
}

func (s step) String() string {
	var names []string
	for _, f := range s.faults {
		names = append(names, f.String())
	}
	return fmt.Sprintf("%s, for %s", strings.Join(names, " and "), s.away)
}

func (s step) has(what string, hows ...string) bool {
	return slices.ContainsFunc(s.faults, func(f fault) bool { return f.what == what && slices.Contains(hows, f.how) })
}

// taken is a step that was done.
type taken struct {
	step
	begin time.Time // before anything was taken away
	gone  time.Time // when all of it was
	back  time.Time // when all of it had been given back, or was starting again
	end   time.Time // when everything worked again
}

// mayFail is the oracle: whether a connection may have failed for this step.
//
//	control plane (and with it the authority) killed or hung   nothing fails
//	node agent killed or hung                                  nothing fails
//	ztunnel replaced or hung                                   nothing fails
//	link cut                                                   nothing fails
//	ztunnel killed                                             the connections that it carried: those of its node's
//	                                                           enrolled pods that were begun before
//	node agent killed, and its node's ztunnel killed or        moreover those of its node's enrolled pods that begin
//	replaced at the same time                                  until both are back: nobody holds the listening sockets
//	ztunnel killed or replaced, while its node's way to the    moreover those of its node's enrolled pods that begin
//	control plane is gone                                      until both are back: there is no certificate for them
//
// What is cut or hung is back before a connection's set-up is given up, or else the step
// proves nothing. Who is not enrolled never notices anything.
func (s taken) mayFail(c casualty, p path) bool {
	if c.End.Before(s.begin) || c.Begin.After(s.end) {
		return false
	}
	if s.back.Sub(s.begin) > tooLong {
		return true
	}
	if !p.enrolled {
		return false
	}
	for _, node := range p.nodes {
		ztunnel := node + "/ztunnel"
		if s.has(ztunnel, "killed") && c.Begin.Before(s.gone) {
			return true
		}
		if s.has(ztunnel, "killed", "replaced") && s.has(node+"/nodeagent", "killed") && c.Begin.After(s.begin) {
			return true
		}
		mute := s.has("controlplane", "killed", "hung") || s.has(linkControl+node, "cut")
		if mute && s.has(ztunnel, "killed", "replaced") {
			return true
		}
	}
	return false
}

// path is where a client's connections go.
type path struct {
	enrolled bool
	nodes    []string
}

// The control plane with its authority, node agents, ztunnels and links are taken
// away in random order, one or two at a time, under a load of new and of open
// connections. What may fail then is what mayFail says.
//
// It goes on for AMBIT_TEST_CHAOS (10m; make chaos). AMBIT_TEST_CHAOS_SEED repeats the
// steps of an earlier run.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes parts of the mesh away for a while")
	}
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv(chaosEnv), chaosShort.String()))
	if err != nil {
		t.Fatalf("%s: %v", chaosEnv, err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv(chaosSeedEnv), strconv.FormatUint(rand.Uint64(), 10)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", chaosSeedEnv, err)
	}
	t.Logf("to repeat the steps: %s=%d", chaosSeedEnv, seed)
	random := rand.New(rand.NewPCG(seed, 0))

	m := start(t, world(), "--component-arg", "controlplane=--cert-ttl=1m", "--component-arg", "ztunnel=--cert-ttl=1m")
	m.captured("in")
	c := m.newChaos()
	loads := c.loads()
	var done []taken
	for begin := time.Now(); time.Since(begin) < lasts && !t.Failed(); {
		s := nextStep(random)
		t.Logf("%s step %d: %s", time.Now().Format("15:04:05.000"), len(done)+1, s)
		done = append(done, c.take(s))
	}
	failed, forgiven, void, errs := 0, 0, 0, ""
	for _, s := range done {
		if s.back.Sub(s.begin) > tooLong {
			void++
		}
	}
	for _, l := range loads {
		got := l.end()
		t.Log(got.summary(l.pod))
		for name, n := range got.OK {
			if n < 20 {
				t.Errorf("%s: %d connections or beats to %s: too few to prove anything", l.pod, n, name)
			}
		}
		for _, x := range got.Failed {
			if slices.ContainsFunc(done, func(s taken) bool { return s.mayFail(x, l.paths[x.Target]) }) {
				forgiven++
				continue
			}
			if failed++; failed <= 20 {
				t.Errorf("%s: %s\n%s", l.pod, x, during(done, x))
				errs += x.Error + "\n"
			}
		}
	}
	t.Logf("%d steps, of which %d were too slow to prove anything; %d connections failed that may have, %d that may not", len(done), void, forgiven, failed)
	if failed > 0 {
		t.Logf("what ztunnels logged of these connections:\n%s", m.linesOf(errs))
	}
	m.until("ztunnels that were replaced have ended with their last connections", func() bool {
		return m.component("n1/ztunnel").draining+m.component("n2/ztunnel").draining == 0
	})
	c.noRaces()
	c.noPlaintext()
}

// during gives the steps that a connection has seen.
func during(done []taken, x casualty) string {
	var all strings.Builder
	for i, s := range done {
		if !x.End.Before(s.begin) && !x.Begin.After(s.end) {
			const form = "15:04:05.000"
			fmt.Fprintf(&all, "in step %d: %s; begun %s, gone %s, all well %s\n", i+1, s.step, s.begin.Format(form), s.gone.Format(form), s.end.Format(form))
		}
	}
	return cmp.Or(all.String(), "while everything was well")
}

// The oracle knows who suffers from what, and that a seed stands for its steps.
func TestChaosOracle(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(1000+int64(seconds), 0) }
	did := func(list ...fault) taken {
		return taken{step: step{faults: list}, begin: at(10), gone: at(11), back: at(14), end: at(20)}
	}
	across, near, plain := path{true, []string{"n1", "n2"}}, path{true, []string{"n1"}}, path{false, []string{"n1", "n2"}}
	killed, hung := fault{"n2/ztunnel", "killed"}, fault{"controlplane", "hung"}
	slow := did(hung)
	slow.back = at(19)
	for name, tc := range map[string]struct {
		step       taken
		path       path
		begin, end int
		want       bool
	}{
		"carried by what was killed":               {did(killed), across, 5, 11, true},
		"begun after it was killed":                {did(killed), across, 12, 13, false},
		"over long before":                         {did(killed), across, 5, 9, false},
		"begun when all was well again":            {did(killed), across, 21, 22, false},
		"of another node":                          {did(killed), near, 5, 11, false},
		"not enrolled":                             {did(killed), plain, 5, 11, false},
		"no authority for the successor":           {did(killed, hung), across, 12, 13, true},
		"no authority for another node":            {did(killed, hung), near, 12, 13, false},
		"nobody holds the sockets":                 {did(killed, fault{"n2/nodeagent", "killed"}), across, 12, 13, true},
		"nobody holds them for the next one":       {did(fault{"n2/ztunnel", "replaced"}, fault{"n2/nodeagent", "killed"}), across, 12, 13, true},
		"open before, while nobody holds them":     {did(fault{"n2/ztunnel", "replaced"}, fault{"n2/nodeagent", "killed"}), across, 5, 13, false},
		"another node's agent":                     {did(killed, fault{"n1/nodeagent", "killed"}), across, 12, 13, false},
		"replaced":                                 {did(fault{"n2/ztunnel", "replaced"}), across, 5, 13, false},
		"replaced, with the control plane cut off": {did(fault{"n2/ztunnel", "replaced"}, fault{linkControl + "n2", "cut"}), across, 12, 13, true},
		"replaced, with another's way cut":         {did(fault{"n2/ztunnel", "replaced"}, fault{linkControl + "n1", "cut"}), across, 12, 13, false},
		"only the authority":                       {did(hung), across, 5, 13, false},
		"given back too late":                      {slow, plain, 5, 13, true},
		"the link between nodes":                   {did(fault{linkNodes, "cut"}), across, 5, 13, false},
	} {
		if got := tc.step.mayFail(casualty{Begin: at(tc.begin), End: at(tc.end)}, tc.path); got != tc.want {
			t.Errorf("%s: may fail %t, want %t", name, got, tc.want)
		}
	}
	one, same := rand.New(rand.NewPCG(7, 0)), rand.New(rand.NewPCG(7, 0))
	seen := make(map[fault]bool)
	for range 200 {
		s := nextStep(one)
		if other := nextStep(same); s.String() != other.String() {
			t.Fatalf("the same seed gives %q and %q", s, other)
		}
		for _, f := range s.faults {
			seen[f] = true
		}
	}
	if len(seen) != len(faults) {
		t.Errorf("of %d faults %d came in 200 steps", len(faults), len(seen))
	}
}
