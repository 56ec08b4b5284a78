package compile

import "testing"

// TestCapturePhases walks the state machine. An event is one of: on, off (the
// label), yes, no (the agent's report), ack (every ztunnel knows), late (an ack
// of an earlier release).
func TestCapturePhases(t *testing.T) {
	type step struct {
		event string
		phase phase
	}
	for name, steps := range map[string][]step{
		"in and out": {
			{"on", enrolling}, {"yes", captured}, {"off", releasing}, {"ack", released}, {"no", plain},
		},
		"left before the agent was done": {
			{"on", enrolling}, {"off", plain},
		},
		"left while the agent's report was on its way": {
			{"on", enrolling}, {"off", plain}, {"yes", released}, {"no", plain},
		},
		"a capture that is lost does not open plaintext": {
			{"on", enrolling}, {"yes", captured}, {"no", captured}, {"yes", captured},
		},
		"back before anybody released": {
			{"on", enrolling}, {"yes", captured}, {"off", releasing}, {"on", captured},
		},
		"an overtaken confirmation": {
			{"on", enrolling},
			{"yes", captured},
			{"off", releasing},
			{"on", captured},
			{"off", releasing},
			{"late", releasing},
			{"ack", released},
		},
		"back after the agent was told: only a fresh capture counts": {
			{"on", enrolling},
			{"yes", captured},
			{"off", releasing},
			{"ack", released},
			{"on", released},
			{"no", enrolling},
			{"yes", captured},
		},
		"released by the agent on its own": {
			{"on", enrolling}, {"yes", captured}, {"off", releasing}, {"no", releasing}, {"ack", plain},
		},
		"lost, then left and back": {
			{"on", enrolling}, {"yes", captured}, {"no", captured}, {"off", releasing}, {"on", enrolling}, {"yes", captured},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, want := &capture{}, false
			for i, s := range steps {
				switch s.event {
				case "on", "off":
					want = s.event == "on"
				case "yes", "no":
					c.reported = s.event == "yes"
				case "ack":
					c.confirm(c.epoch)
				case "late":
					c.confirm(c.epoch - 1)
				}
				if c.settle(want); c.phase != s.phase {
					t.Fatalf("step %d, %s: phase %d, want %d", i, s.event, c.phase, s.phase)
				}
				if c.tunnel() && !c.wanted() {
					t.Fatalf("step %d: peers are told of a tunnel that the node is told to remove", i)
				}
			}
		})
	}
}
