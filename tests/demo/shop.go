package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

// trafficDir is where the example has what is put beside its manifests.
const trafficDir = "traffic"

// add puts files of the example beside the manifests, as cp would.
func (d *demo) add(names ...string) error {
	d.say("$ cp %s/%s DIR", trafficDir, braces(names))
	for _, n := range names {
		raw, err := os.ReadFile(filepath.Join(d.example, trafficDir, n))
		if err == nil {
			err = replaceFile(filepath.Join(d.files, n), raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take removes files again.
func (d *demo) take(names ...string) error {
	d.say("$ rm DIR/%s", braces(names))
	for _, n := range names {
		if err := os.Remove(filepath.Join(d.files, n)); err != nil {
			return err
		}
	}
	return nil
}

func braces(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	bare := make([]string, len(names))
	for i, n := range names {
		bare[i] = strings.TrimSuffix(n, ".yaml")
	}
	return "{" + strings.Join(bare, ",") + "}.yaml"
}

// answers is what "shop get -json" tells.
type answers struct {
	Requests   int            `json:"requests"`
	Statuses   map[string]int `json:"statuses"`
	Versions   map[string]int `json:"versions"`
	RetryAfter string         `json:"retryAfter"`
	Body       string         `json:"body"`
	Trace      string         `json:"trace"`
}

// ok is how many succeeded, and failed how many did not.
func (a *answers) ok() int     { return a.Statuses["200 OK"] }
func (a *answers) failed() int { return a.Requests - a.ok() }

// with counts the answers of a status.
func (a *answers) with(code int) int {
	n := 0
	for status, times := range a.Statuses {
		if strings.HasPrefix(status, strconv.Itoa(code)+" ") {
			n += times
		}
	}
	return n
}

// purchase is what is bought; an id makes it countable.
func purchase(id string) string {
	url := "http://web:8080/buy?sku=mug&card=1"
	if id != "" {
		url += "&id=" + id
	}
	return url
}

// ask has a pod send requests with "shop get".
func (d *demo) ask(ctx context.Context, pod string, argv ...string) (*answers, error) {
	out, err := d.exec(ctx, pod, append([]string{"shop", "get", "-json"}, argv...)...)
	a := new(answers)
	// Its exit code says that not all succeeded, and its output what happened.
	if jerr := json.Unmarshal([]byte(out), a); jerr != nil {
		if err == nil {
			err = jerr
		}
		return nil, fmt.Errorf("%s: %w", pod, err)
	}
	return a, nil
}

// until repeats something until it is as wanted: an edit takes a moment.
func (d *demo) until(ctx context.Context, what string, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, fmt.Errorf("waited 15 s in vain until %s", what))
	defer cancel()
	for {
		ok, err := look()
		if ok || err != nil {
			return err
		}
		if pass(ctx, 50*time.Millisecond) != nil {
			return context.Cause(ctx)
		}
	}
}

// podsOf gives the pods of a Deployment, as exec takes them.
func podsOf(st control.Status, deployment string) (all []string) {
	for _, p := range st.Pods {
		// <deployment>-<hash>-<suffix>
		if parts := strings.Split(p.Name, "-"); len(parts) > 2 && strings.Join(parts[:len(parts)-2], "-") == deployment {
			all = append(all, p.Namespace+"/"+p.Name)
		}
	}
	return all
}

// seen counts how often the pods of a Deployment were sent a request of an id.
func (d *demo) seen(ctx context.Context, deployment, id string) (int, error) {
	st, err := d.status(ctx)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, pod := range podsOf(st, deployment) {
		a, err := d.ask(ctx, pod, "http://127.0.0.1:8080/seen?id="+id)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(a.Body))
		if err != nil {
			return 0, fmt.Errorf("%s counts %q", pod, a.Body)
		}
		total += n
	}
	return total, nil
}

// call is a line of "ambit-local observe -o json", as far as it matters here.
type call struct {
	Verdict     string `json:"verdict"`
	Security    string `json:"security"`
	Protocol    string `json:"protocol"`
	Reason      string `json:"reason"`
	Source      peer   `json:"source"`
	Destination peer   `json:"destination"`
	Service     struct {
		Name string `json:"name"`
	} `json:"service"`
	HTTP *struct {
		Method string `json:"method"`
		Path   string `json:"path"`
		Status int    `json:"status"`
	} `json:"http"`
	Hops []hop `json:"hops"`
}

type hop struct {
	Proxy string `json:"proxy"`
	Name  string `json:"name"`
	Node  string `json:"node"`
}

type peer struct {
	Owner    string `json:"owner"`
	Workload string `json:"workload"`
	Identity string `json:"identity"`
}

// way names the proxies that the call went through.
func (c *call) way() string {
	var all []string
	for _, h := range c.Hops {
		if h.Proxy == "waypoint" {
			all = append(all, h.Name)
		} else {
			all = append(all, h.Node)
		}
	}
	return strings.Join(all, " > ")
}

func (c *call) byWaypoint() bool {
	return slices.ContainsFunc(c.Hops, func(h hop) bool { return h.Proxy == "waypoint" })
}

// String is the call in columns.
func (c *call) String() string {
	what := c.Protocol
	if c.HTTP != nil {
		what = fmt.Sprintf("%s %s %s %d", c.Protocol, c.HTTP.Method, c.HTTP.Path, c.HTTP.Status)
	}
	return fmt.Sprintf("%-8s -> %-8s %-36s %s, %s", c.Source.Owner, c.Service.Name, what, c.Security, c.way())
}

// calls reads what the mesh tells of calls from one to another.
func (d *demo) calls(ctx context.Context, flags ...string) ([]call, error) {
	out, err := d.output(ctx, "observe", append(flags, "-o", "json")...)
	if err != nil {
		return nil, err
	}
	var all []call
	for line := range strings.Lines(out) {
		var c call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return nil, fmt.Errorf("observe: %w: %s", err, line)
		}
		all = append(all, c)
	}
	return all, nil
}

// edges are who calls whom when somebody buys something.
var edges = [...][2]string{{"load", "web"}, {"web", "cart"}, {"cart", "catalog"}, {"cart", "stock"}}

// awaitCalls waits until the newest call of each edge is as wanted.
func (d *demo) awaitCalls(ctx context.Context, what string, want func(*call) bool) ([]call, error) {
	newest := make([]call, len(edges))
	err := d.until(ctx, what, func() (bool, error) {
		for i, e := range edges {
			all, err := d.calls(ctx, "--from", "shop/"+e[0], "--to", "shop/"+e[1], "--verdict", "forwarded", "--since", "1s", "--last", "1")
			// Who is seen by the destination alone has addressed no service.
			if err != nil || len(all) == 0 || all[0].Service.Name != e[1] || !want(&all[0]) {
				return false, err
			}
			newest[i] = all[0]
		}
		return true, nil
	})
	return newest, err
}
