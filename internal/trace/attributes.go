package trace

// Attributes are what a span says about a request, by the OpenTelemetry semantic
// conventions for HTTP and RPC where those have a name. Zero values are left out.
type Attributes struct {
	Method string
	Scheme string // http or https
	// Path of the request, without its query, which may hold secrets.
	Path string
	// Host is the authority without its port; Port is 0 where it is the scheme's.
	Host      string
	Port      uint16
	Version   string // 1.0, 1.1 or 2
	UserAgent string
	// Peer is the other end of the connection.
	PeerAddress string
	PeerPort    uint16
	// Client is the address that the request comes from.
	ClientAddress string
	Status        int

	// GRPC says that the request is one, of Service and RPC.
	GRPC                        bool
	GRPCService, GRPCMethod     string
	GRPCStatus                  int
	RequestBytes, ResponseBytes int64
	// Resend is how many times the request was sent before.
	Resend int
	// Error is the class of what went wrong, in few different words, such as the
	// response flags; "" when the status says all.
	Error string

	// Route as "kind namespace/name", Rule its rule, Backend the service that was
	// chosen, all as the waypoint's configuration names them.
	Route, Rule, Backend string
	// Identities as SPIFFE IDs.
	SourceIdentity, DestinationIdentity string
	SourceWorkload, DestinationWorkload string // namespace/name
	// Retries is how many times the request was sent again.
	Retries int
	// Policy refused the request.
	Policy, PolicyRule string
	// Waypoint that served it.
	Waypoint string
	// Extra are what a configuration asks for besides; each replaces what has its name.
	Extra []Extra

	// Kind is set by Start: client and server see errors differently.
	Kind Kind
}

// Extra is an attribute that a configuration asks for.
type Extra struct {
	Name, Value string
	// Of is the key of the attribute that has the value, instead of Value. Where the
	// span has none, there is no extra one.
	Of string
}
