package traffic

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// duration is the form of GEP-2257.
var duration = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// ParseDuration reads a duration of Gateway API (GEP-2257).
func ParseDuration(d gatewayv1.Duration) (time.Duration, error) {
	if !duration.MatchString(string(d)) {
		return 0, fmt.Errorf("%q is not a duration: write up to four of h, m, s and ms, such as 1m30s", d)
	}
	return time.ParseDuration(string(d))
}

// CheckRegex says what is wrong with a regular expression of RE2.
func CheckRegex(expr string) error {
	if len(expr) > maxRegex {
		return fmt.Errorf("a regular expression of %d bytes is too long; at most %d are possible", len(expr), maxRegex)
	}
	if _, err := regexp.Compile(expr); err != nil {
		return fmt.Errorf("not a regular expression of RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// maxRegex is more than the CRDs of Gateway API let a value have.
const maxRegex = 4096
