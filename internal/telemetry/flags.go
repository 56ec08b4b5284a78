package telemetry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// ParseFlags reads args, and for flags that they leave out the environment:
// --xds-address is AMBIT_XDS_ADDRESS. Arguments that are no flags are an error.
func ParseFlags(f *pflag.FlagSet, args []string, getenv func(string) string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: only flags are taken", f.Arg(0))
	}
	var errs []error
	f.VisitAll(func(fl *pflag.Flag) {
		name := "AMBIT_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		if v := getenv(name); v != "" && !fl.Changed {
			if err := fl.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, v, err))
			}
		}
	})
	return errors.Join(errs...)
}
