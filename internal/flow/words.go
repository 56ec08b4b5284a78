package flow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
)

// words are the conditions of a filter that are lists of names: where each is
// kept, and how its names are written.
var words = map[string]struct {
	list  func(*flowpb.Filter) *[]string
	check func(string) (string, error)
}{
	"namespace": {func(f *flowpb.Filter) *[]string { return &f.Namespaces }, plain},
	"workload":  {func(f *flowpb.Filter) *[]string { return &f.Workloads }, name},
	"from":      {func(f *flowpb.Filter) *[]string { return &f.From }, name},
	"to":        {func(f *flowpb.Filter) *[]string { return &f.To }, name},
	"service":   {func(f *flowpb.Filter) *[]string { return &f.Services }, name},
	"identity":  {func(f *flowpb.Filter) *[]string { return &f.Identities }, spiffe},
	"protocol":  {func(f *flowpb.Filter) *[]string { return &f.Protocols }, protocol},
	"method":    {func(f *flowpb.Filter) *[]string { return &f.Methods }, func(s string) (string, error) { return strings.ToUpper(s), nil }},
	"path":      {func(f *flowpb.Filter) *[]string { return &f.PathPrefixes }, path},
	"policy":    {func(f *flowpb.Filter) *[]string { return &f.Policies }, name},
	"node":      {func(f *flowpb.Filter) *[]string { return &f.Nodes }, plain},
	"trace":     {func(f *flowpb.Filter) *[]string { return &f.TraceIds }, traceID},
}

// verdicts and reporters, as people write them.
var verdicts = map[string]flowpb.Verdict{
	"forwarded": flowpb.Verdict_VERDICT_FORWARDED, "denied": flowpb.Verdict_VERDICT_DENIED,
	"failed": flowpb.Verdict_VERDICT_FAILED, "limited": flowpb.Verdict_VERDICT_LIMITED,
}

var reporters = map[string]flowpb.Reporter{
	"source": flowpb.Reporter_REPORTER_SOURCE, "destination": flowpb.Reporter_REPORTER_DESTINATION, "waypoint": flowpb.Reporter_REPORTER_WAYPOINT,
}

// VerdictName gives a verdict as people write it.
func VerdictName(v flowpb.Verdict) string { return nameOf(verdicts, v) }

// ReporterName gives a reporter as people write it.
func ReporterName(r flowpb.Reporter) string { return nameOf(reporters, r) }

func nameOf[T comparable](m map[string]T, v T) string {
	for name, x := range m {
		if x == v {
			return name
		}
	}
	return "unknown"
}

// Words gives the names of all conditions.
func Words() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(words)), "verdict", "status", "port", "reporter", "encrypted", "unencrypted")))
}

// Add puts a condition into a filter: a word and what it may be, separated by
// commas. For encrypted and unencrypted that is "" or "true".
func Add(f *flowpb.Filter, word, values string) error {
	if word == "encrypted" || word == "unencrypted" {
		return addEncrypted(f, word, values)
	}
	for v := range strings.SplitSeq(values, ",") {
		v = strings.TrimSpace(v)
		err := errors.New("is empty")
		if v != "" {
			err = add(f, word, v)
		}
		if err != nil {
			return fmt.Errorf("%s %q: %w", word, v, err)
		}
	}
	return nil
}

// add puts one value into a filter.
func add(f *flowpb.Filter, word, v string) error {
	if w, ok := words[word]; ok {
		v, err := w.check(v)
		if err != nil {
			return err
		}
		list := w.list(f)
		*list = append(*list, v)
		return nil
	}
	switch word {
	case "verdict":
		return choose(&f.Verdicts, verdicts, v)
	case "reporter":
		return choose(&f.Reporters, reporters, v)
	case "status":
		r, err := statuses(v)
		f.Statuses = append(f.Statuses, r)
		return err
	case "port":
		p, err := strconv.ParseUint(v, 10, 16)
		if err != nil || p == 0 {
			return errors.New("want 1 to 65535")
		}
		f.Ports = append(f.Ports, uint32(p))
		return nil
	}
	return fmt.Errorf("want one of %s", strings.Join(Words(), ", "))
}

func choose[T any](dst *[]T, known map[string]T, v string) error {
	x, ok := known[strings.ToLower(v)]
	if !ok {
		return fmt.Errorf("want one of %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	*dst = append(*dst, x)
	return nil
}

func addEncrypted(f *flowpb.Filter, word, value string) error {
	if value != "" && value != "true" {
		return fmt.Errorf("%s %q: takes no value", word, value)
	}
	want := flowpb.Filter_ENCRYPTED_YES
	if word == "unencrypted" {
		want = flowpb.Filter_ENCRYPTED_NO
	}
	if f.Encrypted != flowpb.Filter_ENCRYPTED_UNSPECIFIED && f.Encrypted != want {
		return errors.New("encrypted and unencrypted: nothing is both")
	}
	f.Encrypted = want
	return nil
}

// statuses reads 404, 5xx, 500-599, 400+.
func statuses(s string) (*flowpb.StatusRange, error) {
	bad := errors.New("want for example 404, 5xx, 500-503 or 400+")
	if len(s) == 3 && s[0] >= '1' && s[0] <= '9' && strings.EqualFold(s[1:], "xx") {
		from := uint32(s[0]-'0') * 100
		return &flowpb.StatusRange{From: from, To: from + 99}, nil
	}
	low, high, isRange := strings.Cut(s, "-")
	if rest, ok := strings.CutSuffix(s, "+"); ok {
		low, high, isRange = rest, "999", true
	}
	if !isRange {
		high = low
	}
	from, err1 := strconv.ParseUint(low, 10, 32)
	to, err2 := strconv.ParseUint(high, 10, 32)
	if err1 != nil || err2 != nil || from > to || to > 999 {
		return nil, bad
	}
	return &flowpb.StatusRange{From: uint32(from), To: uint32(to)}, nil
}

func plain(s string) (string, error) {
	if strings.ContainsAny(s, "/* \t") {
		return "", errors.New("want a name")
	}
	return s, nil
}

// name takes [namespace/]name, the end of which may be *. A kind in front of it,
// as other commands have them, is what people write by habit.
func name(s string) (string, error) {
	switch parts := strings.Split(s, "/"); {
	case len(parts) > 2, slices.Contains(parts, ""):
		return "", errors.New("want [namespace/]name")
	case slices.Contains([]string{"deploy", "deployment", "svc", "service", "sts", "statefulset", "pod"}, parts[0]) && len(parts) == 2:
		return "", fmt.Errorf("want [namespace/]name, such as %s", parts[1])
	}
	if i := strings.IndexByte(s, '*'); i >= 0 && i != len(s)-1 {
		return "", errors.New("* can only be at the end")
	}
	return s, nil
}

func spiffe(s string) (string, error) {
	if !strings.HasPrefix(s, "spiffe://") {
		return "", errors.New("want spiffe://trust-domain/ns/namespace/sa/account, or the beginning of one with * at its end")
	}
	return s, nil
}

func protocol(s string) (string, error) {
	s = strings.ToLower(s)
	if !slices.Contains(protocols, s) {
		return "", fmt.Errorf("want one of %s", strings.Join(protocols, ", "))
	}
	return s, nil
}

func path(s string) (string, error) {
	if s[0] != '/' {
		return "", errors.New("want the beginning of a path, such as /api/")
	}
	return s, nil
}

func traceID(s string) (string, error) {
	if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", errors.New("want 32 hexadecimal digits")
	}
	return s, nil
}

// Parse reads a filter as one line: word=value[,value...] separated by spaces.
func Parse(s string) (*flowpb.Filter, error) {
	f := &flowpb.Filter{}
	for field := range strings.FieldsSeq(s) {
		word, values, _ := strings.Cut(field, "=")
		if err := Add(f, word, values); err != nil {
			return nil, err
		}
	}
	return f, nil
}
