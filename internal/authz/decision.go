package authz

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/identity"
)

// Connection is what is known of a connection when it is opened.
type Connection struct {
	// Source is the verified identity of who connects; zero for plaintext.
	Source identity.ID
	// Peer is the verified identity of who holds the tunnel: Source, or a waypoint
	// that speaks for it; zero for plaintext.
	Peer identity.ID
	// SourceIP is the address that the connection comes from.
	SourceIP netip.Addr
	// DestIP and DestPort are where it goes: the workload's own address and the
	// port that the workload listens on.
	DestIP   netip.Addr
	DestPort uint16
}

// Action is what a policy does with connections that match.
type Action uint8

// Actions.
const (
	Allow Action = iota
	Deny
	Audit
)

// String gives the action as people write it.
func (a Action) String() string {
	switch a {
	case Allow:
		return "ALLOW"
	case Deny:
		return "DENY"
	default:
		return "AUDIT"
	}
}

// NoRule is the Rule of a Decision that no single rule made.
const NoRule = -1

// Decision is the verdict on a connection and who made it.
type Decision struct {
	Allowed bool
	// Policy that decided; zero when none did: there is no ALLOW policy, or
	// there are some and none of their rules matched.
	Policy Key
	// Rule is the position of the rule in the policy, and RuleName its name, if
	// it has one.
	Rule     int
	RuleName string
	// Audits are the policies that change nothing and match; at most MaxAudits.
	Audits []AuditMatch
	// Reason of a denial, for people; "" when allowed.
	Reason string
}

// MaxAudits bounds Decision.Audits.
const MaxAudits = 16

// AuditMatch is a match that decides nothing.
type AuditMatch struct {
	Policy Key
	// Action is Audit, or the action of a policy that is only tried out.
	Action   Action
	Rule     int
	RuleName string
}
