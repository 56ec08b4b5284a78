package control

import (
	"encoding/json"
	"time"

	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/system"
)

// The operations.
const (
	OpStatus  = "status"
	OpGet     = "get"
	OpExec    = "exec"
	OpLogs    = "logs"
	OpRestart = "restart"
	OpDown    = "down"
	OpWatch   = "watch"
	OpFlows   = "flows"
	OpExplain = "explain"
)

// request is the first line of a connection.
type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// frame is any later line.
type frame struct {
	Data   json.RawMessage `json:"data,omitempty"`
	Error  string          `json:"error,omitempty"`
	Exit   *int            `json:"exit,omitempty"`
	Signal int             `json:"signal,omitempty"`
}

// GetArgs are the arguments of OpGet. The answer is a Kubernetes List.
type GetArgs struct {
	Kind      string `json:"kind"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"` // empty is all
}

// Target names something to run in or to read the output of: a pod, deploy/NAME,
// svc/NAME, a node, or a component.
type Target struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
	Container string `json:"container,omitempty"`
}

// ExecArgs are the arguments of OpExec; the files are the three standard ones.
type ExecArgs struct {
	Target
	Argv []string `json:"argv"`
	// Env is added to the environment.
	Env []string `json:"env,omitempty"`
	// Dir is the working directory where the target is no container.
	Dir string `json:"dir,omitempty"`
}

// ExplainArgs are the arguments of OpExplain. The answer is an explain.Report.
type ExplainArgs struct {
	// From is the pod that sends the request; no name is none.
	From  Target        `json:"from"`
	Query explain.Query `json:"query"`
}

// LogsAnswer is the answer of OpLogs.
type LogsAnswer struct {
	// Path is the file with the output.
	Path string `json:"path"`
}

// RestartArgs are the arguments of OpRestart.
type RestartArgs struct {
	Component string `json:"component"`
	Signal    int    `json:"signal"`
}

// DownArgs are the arguments of OpDown. The stream ends when the sandbox does.
type DownArgs struct {
	Grace time.Duration `json:"grace"`
}

// Event is one thing that happened; OpWatch streams those of the past first.
type Event struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"` // info or warn
	Message string    `json:"message"`
	// Ready is set on the event that says that everything is up.
	Ready bool `json:"ready,omitempty"`
	// Fatal is set on the event that says that it never will be.
	Fatal bool `json:"fatal,omitempty"`
}

// FlowsArgs are the arguments of OpFlows.
type FlowsArgs struct {
	// Request is an ambit.flow.v1.ObserveRequest in its wire format.
	Request []byte `json:"request"`
}

// Flow is one thing that a proxy tells of; OpFlows streams them. One field of
// Record, Lost, Problem and Change is set.
type Flow struct {
	// From names the proxy, such as n1/ztunnel or shop/waypoint-1.
	From string `json:"from"`
	// Record is an ambit.flow.v1.FlowRecord in its wire format.
	Record []byte `json:"record,omitempty"`
	// Lost is how many records are missing here.
	Lost uint64 `json:"lost,omitempty"`
	// Problem says why the proxy tells nothing.
	Problem string `json:"problem,omitempty"`
	// Change says that the proxy came or went.
	Change string `json:"change,omitempty"`
}

// Status is the answer of OpStatus.
type Status struct {
	Name       string          `json:"name"`
	Manifests  string          `json:"manifests"`
	State      string          `json:"stateDirectory"`
	Started    time.Time       `json:"started"`
	Mesh       bool            `json:"mesh"`
	Rootless   bool            `json:"rootless"`
	Ready      bool            `json:"ready"`
	Nodes      []Node          `json:"nodes"`
	Components []system.Status `json:"components"`
	Pods       []Pod           `json:"pods"`
	Waypoints  []Waypoint      `json:"waypoints"`
	// Routes are those that are not accepted; Problems has why.
	Routes   []Route  `json:"routes,omitempty"`
	Problems []string `json:"problems"`
	// Notes are differences from a cluster that keep nothing from running.
	Notes []string `json:"notes"`
}

// Node is a node in Status.
type Node struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	PodBlocks []string `json:"podBlocks"`
	Pods      int      `json:"pods"`
	// Certificates are those that its ztunnel holds; nil where it cannot be asked.
	Certificates *Certificates `json:"certificates,omitempty"`
}

// Certificates sums up what a ztunnel holds.
type Certificates struct {
	// States counts identities by valid, overdue (to be renewed), expired and missing.
	States map[string]int `json:"states"`
	// Soonest is when the first of them expires.
	Soonest time.Time `json:"soonestExpiry,omitzero"`
	// Errors are why some could not be had, by identity.
	Errors map[string]string `json:"errors,omitempty"`
}

// Waypoint is a Gateway of class ambit-waypoint in Status.
type Waypoint struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Programmed: at least one of its pods serves.
	Programmed bool     `json:"programmed"`
	Addresses  []string `json:"addresses"`
	// Message says how it is.
	Message string `json:"message"`
}

// Pod is a pod in Status.
type Pod struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	Node      string   `json:"node"`
	IPs       []string `json:"ips"`
	Ready     string   `json:"ready"` // such as 1/2
	State     string   `json:"state"`
	// Message says why the pod is not ready, where that is known.
	Message  string `json:"message,omitempty"`
	Restarts int    `json:"restarts"`
	// Captured is yes, no, or empty where the mesh cannot be asked.
	Captured string `json:"captured,omitempty"`
	// Netns is the path of the network namespace inside the sandbox.
	Netns string `json:"netns"`
	// Pids are the process ids of the containers inside the sandbox.
	Pids    map[string]int `json:"pids"`
	Created time.Time      `json:"created"`
}
