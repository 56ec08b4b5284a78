package route

import (
	"fmt"
	"strings"
)

// Problem is something in a configuration that cannot be carried out.
type Problem struct {
	// Object is kind and name of what it is in: a route, or the frontend.
	Object string
	// Rule is the position of the rule in the route, or -1.
	Rule int
	// RuleName is the rule's name, if it has one.
	RuleName string
	// Field is the path of the field in the rule, or in the object.
	Field string
	// Message says what is wrong and what to do.
	Message string
}

// String names object, rule and field and says what is wrong.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Object)
	if p.Rule >= 0 {
		fmt.Fprintf(&b, " rule %d", p.Rule)
		if p.RuleName != "" {
			fmt.Fprintf(&b, " (%s)", p.RuleName)
		}
	}
	b.WriteString(": ")
	b.WriteString(p.detail())
	return b.String()
}

// Error implements error.
func (p Problem) Error() string { return p.String() }

func (p Problem) detail() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

// compiler collects the problems of one rule, or of one object.
type compiler struct {
	// where is the object and rule that the problems are of.
	where    Problem
	problems []Problem
	// minor are problems that leave the rule as a whole usable: those of a backend.
	minor []Problem
	// noPrefix is why the rule has no prefix that could be replaced.
	noPrefix string
}

func (c *compiler) problem(field, message string) {
	p := c.where
	p.Field, p.Message = field, message
	c.problems = append(c.problems, p)
}

// reason is why what was compiled cannot be carried out; "" if it can.
func (c *compiler) reason() string { return reasonOf(c.problems) }

func reasonOf(problems []Problem) string {
	switch len(problems) {
	case 0:
		return ""
	case 1:
		return problems[0].String()
	}
	return fmt.Sprintf("%s (and %d more)", problems[0], len(problems)-1)
}
