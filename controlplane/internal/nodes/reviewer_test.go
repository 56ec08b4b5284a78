package nodes_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/nodes"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// reviews answers for an API server.
type reviews struct {
	mu     sync.Mutex
	asked  int                                           // guarded by mu
	away   error                                         // guarded by mu
	answer map[string]authenticationv1.TokenReviewStatus // guarded by mu; by token
}

func (r *reviews) Create(_ context.Context, tr *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.away != nil {
		return nil, r.away
	}
	if got := fmt.Sprint(tr.Spec.Audiences); got != "[ambit-mesh.io]" {
		return nil, fmt.Errorf("asked for audiences %s", got)
	}
	out := tr.DeepCopy()
	out.Status = r.answer[tr.Spec.Token]
	return out, nil
}

func (r *reviews) set(away error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

func (r *reviews) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// livePods is what the cache knows.
type livePods struct {
	mu   sync.Mutex
	pods map[types.NamespacedName]compile.Pod // guarded by mu
}

func (l *livePods) LivePod(n types.NamespacedName) (compile.Pod, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pods[n]
	return p, ok
}

func (l *livePods) put(n types.NamespacedName, p compile.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.UID == "" {
		delete(l.pods, n)
		return
	}
	l.pods[n] = p
}

// jwt is a token that says of itself that it ends then; nobody has signed it.
func jwt(audience string, ends time.Time, id string) string {
	claims := fmt.Sprintf(`{"aud":[%q],"exp":%d,"jti":%q}`, audience, ends.Unix(), id)
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func proved(user, pod, uid string, audiences ...string) authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: audiences, User: authenticationv1.UserInfo{
		Username: user, Extra: map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {pod}, "authentication.kubernetes.io/pod-uid": {uid},
		},
	}}
}

type reviewer struct {
	*nodes.Reviewer
	api  *reviews
	pods *livePods
	now  time.Time
}

var (
	agentPod    = types.NamespacedName{Namespace: "ambit-system", Name: "agent"}
	waypointPod = types.NamespacedName{Namespace: "shop", Name: "wp-1"}
	webPod      = types.NamespacedName{Namespace: "shop", Name: "web"}
)

const serviceAccounts = "system:serviceaccount:"

func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	r := &reviewer{
		api: &reviews{answer: make(map[string]authenticationv1.TokenReviewStatus)}, now: time.Unix(1_000_000, 0),
		pods: &livePods{pods: map[types.NamespacedName]compile.Pod{
			agentPod:    {UID: "a", Node: "n1", ServiceAccount: "ambit-nodeagent"},
			waypointPod: {UID: "w", Node: "n1", ServiceAccount: "wp", Gateway: "wp"},
			webPod:      {UID: "x", Node: "n1", ServiceAccount: "web"},
		}},
	}
	var err error
	r.Reviewer, err = nodes.NewReviewer(nodes.ReviewerConfig{
		Reviews: r.api, Pods: r.pods, RootNamespace: "ambit-system", NodeAccounts: []string{"ambit-ztunnel", "ambit-nodeagent"},
		Now: func() time.Time { return r.now }, Log: zaptest.NewLogger(t), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// token registers a token with what the API server says of it.
func (r *reviewer) token(id string, says authenticationv1.TokenReviewStatus) string {
	token := jwt(nodes.Audience, r.now.Add(time.Hour), id)
	r.api.mu.Lock()
	defer r.api.mu.Unlock()
	r.api.answer[token] = says
	return token
}

func (r *reviewer) agentToken() string {
	return r.token("agent", proved(serviceAccounts+"ambit-system:ambit-nodeagent", "agent", "a", nodes.Audience))
}

func (r *reviewer) refuses(t *testing.T, token string, code codes.Code, text string) {
	t.Helper()
	c, err := r.Prove(t.Context(), token)
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %+v, %v; want %s with %q", c, err, code, text)
	}
}

func TestReviewerProves(t *testing.T) {
	r := newReviewer(t)
	c, err := r.Prove(t.Context(), r.agentToken())
	if err != nil || c.Node != "n1" || c.Workload != nil || c.Agent == nil || c.Agent.UID != "a" {
		t.Errorf("an agent: %+v, %v", c, err)
	}
	c, err = r.Prove(t.Context(), r.token("wp", proved(serviceAccounts+"shop:wp", "wp-1", "w", nodes.Audience)))
	if err != nil || c.Workload == nil || c.Workload.Gateway != "wp" || c.Workload.ServiceAccount != "wp" || c.Node != "n1" {
		t.Errorf("a waypoint: %+v, %v", c, err)
	}
}

func TestReviewerRefuses(t *testing.T) {
	r := newReviewer(t)
	unbound := proved(serviceAccounts+"ambit-system:ambit-nodeagent", "", "", nodes.Audience)
	unbound.User.Extra = nil
	for name, tc := range map[string]struct {
		says authenticationv1.TokenReviewStatus
		code codes.Code
		want string
	}{
		"not valid":        {authenticationv1.TokenReviewStatus{Error: "expired"}, codes.Unauthenticated, "expired"},
		"another audience": {proved(serviceAccounts+"ambit-system:ambit-nodeagent", "agent", "a", "api"), codes.Unauthenticated, "not for audience"},
		"no audience":      {proved(serviceAccounts+"ambit-system:ambit-nodeagent", "agent", "a"), codes.Unauthenticated, "not for audience"},
		"a person":         {proved("jane", "agent", "a", nodes.Audience), codes.Unauthenticated, "no ServiceAccount"},
		"unbound":          {unbound, codes.Unauthenticated, "not bound to a pod"},
		"an earlier pod":   {proved(serviceAccounts+"ambit-system:ambit-nodeagent", "agent", "before", nodes.Audience), codes.Unauthenticated, "earlier pod"},
		"another account":  {proved(serviceAccounts+"ambit-system:other", "agent", "a", nodes.Audience), codes.Unauthenticated, "earlier pod"},
		"an ordinary pod":  {proved(serviceAccounts+"shop:web", "web", "x", nodes.Audience), codes.Unauthenticated, "neither a ztunnel or node agent"},
		// The name of the account counts in the root namespace only.
		"an agent elsewhere":  {proved(serviceAccounts+"shop:ambit-nodeagent", "fake", "f", nodes.Audience), codes.Unauthenticated, "neither a ztunnel or node agent"},
		"a pod not known yet": {proved(serviceAccounts+"ambit-system:ambit-nodeagent", "new", "n", nodes.Audience), codes.Unavailable, "not known here yet"},
	} {
		t.Run(name, func(t *testing.T) {
			r.pods.put(types.NamespacedName{Namespace: "shop", Name: "fake"}, compile.Pod{UID: "f", Node: "n1", ServiceAccount: "ambit-nodeagent"})
			r.refuses(t, r.token(name, tc.says), tc.code, tc.want)
		})
	}
	asked := r.api.count()
	for text, token := range map[string]string{
		"no ServiceAccount token": "secret",
		"not for audience":        jwt("kubernetes", r.now.Add(time.Hour), "x"),
		"that expires":            "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":["ambit-mesh.io"]}`)) + ".c2ln",
	} {
		r.refuses(t, token, codes.Unauthenticated, text)
	}
	if n := r.api.count() - asked; n != 0 {
		t.Errorf("the API server was asked %d times about what cannot be a token of the mesh", n)
	}
}

// While the API server is away, callers that it knew go on until their token ends,
// and others are told to come again.
func TestReviewerWhileTheAPIIsAway(t *testing.T) {
	r := newReviewer(t)
	known := r.agentToken()
	prove := func() error { _, err := r.Prove(t.Context(), known); return err }
	if err := prove(); err != nil {
		t.Fatal(err)
	}
	if err := prove(); err != nil || r.api.count() != 1 {
		t.Fatalf("asked %d times within a minute; %v", r.api.count(), err)
	}
	stranger := r.token("stranger", proved(serviceAccounts+"shop:wp", "wp-1", "w", nodes.Audience))
	liar := r.token("liar", authenticationv1.TokenReviewStatus{})
	r.refuses(t, liar, codes.Unauthenticated, "not a valid one")
	r.api.set(errors.New("connection refused"))
	r.now = r.now.Add(30 * time.Minute)
	if err := prove(); err != nil {
		t.Errorf("a known caller: %v", err)
	}
	r.refuses(t, stranger, codes.Unavailable, "connection refused")
	r.refuses(t, liar, codes.Unavailable, "connection refused") // neither let in nor condemned
	r.now = r.now.Add(30 * time.Minute)
	r.refuses(t, known, codes.Unavailable, "connection refused") // its token has ended
	r.api.set(nil)
	if _, err := r.Prove(t.Context(), stranger); err != nil {
		t.Errorf("the API server is back: %v", err)
	}
}

// What an API server said may be withdrawn: after a minute it is asked again.
func TestReviewerAsksAgain(t *testing.T) {
	r := newReviewer(t)
	token := r.agentToken()
	if _, err := r.Prove(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	r.api.mu.Lock()
	r.api.answer[token] = authenticationv1.TokenReviewStatus{Error: "pod deleted"}
	r.api.mu.Unlock()
	r.now = r.now.Add(2 * time.Minute)
	r.refuses(t, token, codes.Unauthenticated, "pod deleted")
}

// A caller is one as long as its pod is there, on the same node.
func TestReviewerLive(t *testing.T) {
	r := newReviewer(t)
	c, err := r.Prove(t.Context(), r.agentToken())
	if err != nil || !r.Live(c) {
		t.Fatal(c, err)
	}
	for name, p := range map[string]compile.Pod{
		"gone": {}, "another of the name": {UID: "b", Node: "n1", ServiceAccount: "ambit-nodeagent"}, "another node": {UID: "a", Node: "n2", ServiceAccount: "ambit-nodeagent"},
	} {
		if r.pods.put(agentPod, p); r.Live(c) {
			t.Errorf("%s: still live", name)
		}
	}
	if r.Live(nodes.Caller{Node: "n1"}) {
		t.Error("who is no pod is live")
	}
}

// The streams of a pod that is gone end.
func TestReviewerEndsStreams(t *testing.T) {
	r := newReviewer(t)
	a, err := nodes.NewAuthenticator(nodes.Config{Prover: r, ClusterID: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	in := metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+r.agentToken(), "clusterid", "Kubernetes"))
	open, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- a.Stream(nil, fakeStream{ctx: in}, &grpc.StreamServerInfo{}, func(_ any, ss grpc.ServerStream) error {
			close(open)
			<-ss.Context().Done()
			return ss.Context().Err()
		})
	}()
	select {
	case <-open:
	case err := <-ended:
		t.Fatal(err)
	}
	r.pods.put(agentPod, compile.Pod{})
	var end error
	testkit.Until(t, "the stream ends", func() bool {
		select {
		case end = <-ended:
			return true
		default:
			return false
		}
	})
	if status.Code(end) != codes.Unauthenticated {
		t.Errorf("it ended with %v", end)
	}
}
