package nodes

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

// Audience of the tokens that callers send.
const Audience = "ambit-mesh.io"

const (
	// reviewFor is how long a review is believed without asking again.
	reviewFor = time.Minute
	// refusedFor is how long a token that proves nobody is not asked about again.
	refusedFor = 5 * time.Second
	// expiryMargin before a token's end its review is not believed any more.
	expiryMargin = 10 * time.Second
	// reviewTimeout bounds one question to the API server.
	reviewTimeout = 5 * time.Second
	maxReviews    = 20_000
	maxToken      = 16 << 10

	claimPod    = "authentication.kubernetes.io/pod-name"
	claimPodUID = "authentication.kubernetes.io/pod-uid"
	userPrefix  = "system:serviceaccount:"
)

// Pods finds live pods.
type Pods interface {
	LivePod(n types.NamespacedName) (compile.Pod, bool)
}

// TokenReviews asks the API server about tokens. Clients of its authentication API have it.
type TokenReviews interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, opts metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

// ReviewerConfig is what a Reviewer is made of.
type ReviewerConfig struct {
	Reviews TokenReviews
	Pods    Pods
	// RootNamespace has the ServiceAccounts of the nodes' programs, NodeAccounts.
	RootNamespace string
	NodeAccounts  []string
	Now           func() time.Time // time.Now when nil
	Log           *zap.Logger
	Metrics       prometheus.Registerer
}

// Reviewer proves callers by the API server's TokenReview.
type Reviewer struct {
	cfg     ReviewerConfig
	asking  singleflight.Group
	limit   *rate.Limiter // bounds what callers make us ask
	reviews *prometheus.CounterVec

	mu    sync.Mutex
	known map[[sha256.Size]byte]review // guarded by mu
}

// review is what the API server said of a token.
type review struct {
	bound bound
	// refusal is why the token proves nobody, "" if it proves bound.
	refusal string
	// believed until then without asking again; expires with the token.
	until, expires time.Time
}

// bound is the pod that a token is bound to.
type bound struct{ namespace, account, pod, uid string }

// NewReviewer gives a reviewer.
func NewReviewer(cfg ReviewerConfig) (*Reviewer, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Reviewer{
		cfg: cfg, limit: rate.NewLimiter(50, 500), known: make(map[[sha256.Size]byte]review),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_token_reviews_total", Help: "Tokens that the Kubernetes API was asked about, by outcome.",
		}, []string{"outcome"}),
	}
	return r, cfg.Metrics.Register(r.reviews)
}

// Prove gives the caller that a token proves. While the API server cannot be asked,
// what it said before of a token holds until the token's end.
func (r *Reviewer) Prove(ctx context.Context, token string) (Caller, error) {
	expires, err := tokenExpiry(token)
	if err != "" {
		return Caller{}, status.Error(codes.Unauthenticated, err)
	}
	hash := sha256.Sum256([]byte(token))
	now := r.cfg.Now()
	r.mu.Lock()
	have, ok := r.known[hash]
	r.mu.Unlock()
	if !ok || !now.Before(have.until) {
		fresh, err := r.ask(ctx, token, hash, expires)
		switch {
		case err == nil:
			have = fresh
		case ok && have.refusal == "" && now.Before(have.expires):
			r.cfg.Log.Warn("the Kubernetes API does not review tokens; what it said of this one before holds", zap.String("pod", have.bound.namespace+"/"+have.bound.pod), zap.Error(err))
		default:
			return Caller{}, status.Errorf(codes.Unavailable, "the Kubernetes API does not review the token now, try again: %v", err)
		}
	}
	if have.refusal != "" {
		return Caller{}, status.Error(codes.Unauthenticated, have.refusal)
	}
	return r.caller(have.bound)
}

// ask has a token reviewed, once for all who wait for it.
func (r *Reviewer) ask(ctx context.Context, token string, hash [sha256.Size]byte, expires time.Time) (review, error) {
	result := r.asking.DoChan(string(hash[:]), func() (any, error) {
		if !r.limit.Allow() {
			r.reviews.WithLabelValues("limited").Inc()
			return review{}, status.Error(codes.Unavailable, "too many unknown tokens at once")
		}
		// Whoever asked first may go while others wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		answer, err := r.cfg.Reviews.Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
		}, metav1.CreateOptions{})
		if err != nil {
			r.reviews.WithLabelValues("failed").Inc()
			return review{}, err
		}
		now := r.cfg.Now()
		out := review{expires: expires.Add(-expiryMargin)}
		out.bound, out.refusal = judge(&answer.Status)
		out.until = now.Add(reviewFor)
		outcome := "proved"
		if out.refusal != "" {
			outcome, out.until = "refused", now.Add(refusedFor)
		} else if out.expires.Before(out.until) {
			out.until = out.expires
		}
		r.reviews.WithLabelValues(outcome).Inc()
		r.keep(hash, out, now)
		return out, nil
	})
	select {
	case got := <-result:
		return got.Val.(review), got.Err
	case <-ctx.Done():
		return review{}, context.Cause(ctx)
	}
}

func (r *Reviewer) keep(hash [sha256.Size]byte, v review, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxReviews {
		for h, old := range r.known {
			if old.refusal != "" || !now.Before(old.expires) {
				delete(r.known, h)
			}
		}
	}
	if len(r.known) < maxReviews {
		r.known[hash] = v
	}
}

// judge reads what the API server said: which pod, or why none.
func judge(s *authenticationv1.TokenReviewStatus) (bound, string) {
	if !s.Authenticated {
		return bound{}, "the bearer token is not a valid one of this cluster for audience " + Audience + ": " + clip(s.Error)
	}
	if !slices.Contains(s.Audiences, Audience) {
		return bound{}, "the bearer token is not for audience " + Audience
	}
	name, ok := strings.CutPrefix(s.User.Username, userPrefix)
	namespace, account, both := strings.Cut(name, ":")
	if !ok || !both {
		return bound{}, "the bearer token is that of " + clip(s.User.Username) + ", which is no ServiceAccount"
	}
	pod, uid := s.User.Extra[claimPod], s.User.Extra[claimPodUID]
	if len(pod) != 1 || len(uid) != 1 || pod[0] == "" || uid[0] == "" {
		return bound{}, "the bearer token is not bound to a pod: use a projected token volume"
	}
	return bound{namespace: namespace, account: account, pod: pod[0], uid: uid[0]}, ""
}

// caller gives what a pod may speak for, by what is known of that very pod.
func (r *Reviewer) caller(b bound) (Caller, error) {
	n := types.NamespacedName{Namespace: b.namespace, Name: b.pod}
	p, ok := r.cfg.Pods.LivePod(n)
	if !ok || p.Node == "" {
		// The API server knows the pod, or did a moment ago.
		return Caller{}, status.Errorf(codes.Unavailable, "pod %s is not known here yet, or has finished; try again", n)
	}
	if string(p.UID) != b.uid || p.ServiceAccount != b.account {
		return Caller{}, status.Errorf(codes.Unauthenticated, "the bearer token is that of an earlier pod %s", n)
	}
	if b.namespace == r.cfg.RootNamespace && slices.Contains(r.cfg.NodeAccounts, b.account) {
		return Caller{Node: p.Node, Agent: &Agent{Namespace: b.namespace, Pod: b.pod, UID: b.uid}}, nil
	}
	if p.Gateway != "" {
		return Caller{Node: p.Node, Workload: &Workload{Namespace: b.namespace, Pod: b.pod, UID: b.uid, ServiceAccount: b.account, Gateway: p.Gateway}}, nil
	}
	return Caller{}, status.Errorf(codes.Unauthenticated, "pod %s with ServiceAccount %s is neither a ztunnel or node agent of namespace %s nor a waypoint", n, b.account, r.cfg.RootNamespace)
}

// Live says whether the pod of a caller is still there.
func (r *Reviewer) Live(c Caller) bool {
	n, uid := types.NamespacedName{}, ""
	switch {
	case c.Workload != nil:
		n, uid = types.NamespacedName{Namespace: c.Workload.Namespace, Name: c.Workload.Pod}, c.Workload.UID
	case c.Agent != nil:
		n, uid = types.NamespacedName{Namespace: c.Agent.Namespace, Name: c.Agent.Pod}, c.Agent.UID
	}
	p, ok := r.cfg.Pods.LivePod(n)
	return ok && string(p.UID) == uid && p.Node == c.Node && (c.Workload == nil || p.Gateway == c.Workload.Gateway)
}

// tokenExpiry reads the end of a JSON Web Token (RFC 7519 section 4.1.4) that
// nobody has verified yet, so that strangers cannot make us ask about anything, and
// says what is wrong with one that cannot be valid.
func tokenExpiry(token string) (time.Time, string) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return time.Time{}, "the bearer token is no ServiceAccount token"
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires  *float64        `json:"exp"`
		Audience json.RawMessage `json:"aud"`
	}
	if err != nil || json.Unmarshal(body, &claims) != nil || claims.Expires == nil || *claims.Expires < 0 || *claims.Expires > 1<<40 {
		return time.Time{}, "the bearer token is no ServiceAccount token that expires"
	}
	var many []string
	var one string
	if json.Unmarshal(claims.Audience, &many) != nil {
		if json.Unmarshal(claims.Audience, &one) != nil {
			return time.Time{}, "the bearer token is for no audience"
		}
		many = []string{one}
	}
	if !slices.Contains(many, Audience) {
		return time.Time{}, "the bearer token is not for audience " + Audience
	}
	return time.Unix(int64(*claims.Expires), 0), ""
}

var _ Prover = (*Reviewer)(nil)
