package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Format is the value of -o.
type Format string

func (f *Format) String() string { return string(*f) }

// Set takes one of the known formats.
func (f *Format) Set(s string) error {
	switch s {
	case "table", "json", "yaml":
		*f = Format(s)
		return nil
	}
	return fmt.Errorf("want table, json or yaml")
}

// Type is shown in the help.
func (f *Format) Type() string { return "table|json|yaml" }

// AddFormat adds the flag -o.
func AddFormat(cmd *cobra.Command) *Format {
	f := Format("table")
	cmd.Flags().VarP(&f, "output", "o", "how to print")
	return &f
}

// Print writes a value, as a table by the given function.
func (f *Format) Print(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	switch *f {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		raw, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	default:
		tw := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
		table(tw)
		return tw.Flush()
	}
}

// Row prints a line of a table.
func Row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		text := fmt.Sprint(c)
		if text == "" {
			text = "-"
		}
		fmt.Fprint(w, strings.ReplaceAll(text, "\n", " "))
	}
	fmt.Fprintln(w)
}

// Age says how long ago something was.
func Age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
