package install

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/lifecycle"
)

// Config configures an Installer.
type Config struct {
	// ConfDir and BinDir are the node's, as this process sees them.
	ConfDir, BinDir string
	// Program is the plugin's program in this process's image.
	Program string
	// Entry is the plugin's entry in the list, JSON with a type, which is also the
	// name of the program in BinDir.
	Entry []byte
	// Type is the entry's type.
	Type string
	// Interval is the time between two looks without news.
	Interval time.Duration
	// Settle is how long changes in the directory may come before one is looked
	// at: writers that do not rename write in several steps.
	Settle time.Duration

	Readiness  *lifecycle.Readiness
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// validate names the first field that cannot be used. Taking out needs only the
// directories and the type.
func (c Config) validate(whole bool) error {
	for _, p := range []struct{ name, path string }{{"CNI configuration directory", c.ConfDir}, {"CNI program directory", c.BinDir}} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q: want an absolute path", p.name, p.path)
		}
	}
	if c.Type == "" || filepath.Base(c.Type) != c.Type {
		return fmt.Errorf("type of CNI plugin %q: want a name", c.Type)
	}
	if !whole {
		return nil
	}
	switch {
	case !filepath.IsAbs(c.Program):
		return fmt.Errorf("CNI program %q: want an absolute path", c.Program)
	case len(c.Entry) == 0 || c.Interval <= 0 || c.Settle <= 0 || c.Readiness == nil || c.Logger == nil || c.Registerer == nil:
		return errors.New("CNI installation: a setting is missing")
	}
	return nil
}

type metrics struct {
	installed prometheus.Gauge
	problem   *prometheus.GaugeVec
	changes   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		installed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ambit_cni_installed", Help: "1 while the CNI plugin and its entry in the primary CNI's configuration are in place.",
		}),
		problem: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ambit_cni_config_problem", Help: "1 for each file of the CNI configuration that is malformed or cannot be edited, by file.",
		}, []string{"file"}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ambit_cni_config_changes_total", Help: "Changes that were made to files of the CNI configuration.",
		}),
	}
	for _, c := range []prometheus.Collector{m.installed, m.problem, m.changes} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
