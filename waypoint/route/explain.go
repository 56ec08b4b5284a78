package route

import "github.com/ambit-mesh/ambit/internal/message"

// Explanation says what Match decides, and why.
type Explanation struct{}

// Explain says what Match decides, and why.
func (f *Frontend) Explain(client Client, number uint16, req *message.Request) Explanation {
	return Explanation{}
}

// ExplainConnection says what MatchConnection decides, and why.
func (f *Frontend) ExplainConnection(client Client, number uint16, name string) Explanation {
	return Explanation{}
}
