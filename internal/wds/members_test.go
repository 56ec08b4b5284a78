package wds_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/wds"
)

// TestMembersFollowChanges makes random changes, and compares who is in each service
// with who was said to be.
func TestMembersFollowChanges(t *testing.T) {
	const pods, services = 30, 4
	rng := rand.New(rand.NewPCG(1, 2))
	s := wds.New()
	host := func(i int) string { return fmt.Sprintf("web-%d", i) }
	s.Update(func(c wds.Change) {
		for i := range services {
			put(t, c, service(host(i), fmt.Sprintf("10.96.0.%d", i+1), nil))
		}
	})
	want := make([][]string, services) // names, by service
	for range 2000 {
		i := rng.IntN(pods)
		name := fmt.Sprintf("pod-%d", i)
		for of := range want {
			want[of] = slices.DeleteFunc(want[of], func(n string) bool { return n == name })
		}
		s.Update(func(c wds.Change) {
			if rng.IntN(3) == 0 {
				c.Remove("Kubernetes//Pod/shop/" + name)
				return
			}
			var hosts []string
			for of := range services {
				if rng.IntN(2) == 0 {
					hosts, want[of] = append(hosts, host(of)), append(want[of], name)
				}
			}
			put(t, c, pod(name, fmt.Sprintf("10.0.0.%d", i+1), in(hosts...)))
		})
		for of := range want {
			var got []string
			for _, m := range s.Members(s.Service("shop/" + host(of))) {
				got = append(got, m.Workload.Name)
			}
			slices.Sort(got)
			slices.Sort(want[of])
			if !slices.Equal(got, want[of]) {
				t.Fatalf("%s has %v, want %v", host(of), got, want[of])
			}
		}
	}
}
