package compose

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pawl-ota/pawl/ota/release"
)

const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters = lower + upper
	digits  = "0123456789"
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", release.ErrInvalid, fmt.Errorf(format, args...))
}

// only reports whether s has no other characters than those of allowed.
func only(s, allowed string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(allowed, c) })
}

// ascending checks that a list is sorted by key and has none twice.
func ascending[T any, K cmp.Ordered](what string, list []T, key func(T) K) error {
	if len(list) > MaxItems {
		return invalid("%s: %d are more than %d", what, len(list), MaxItems)
	}
	for i := 1; i < len(list); i++ {
		if key(list[i-1]) >= key(list[i]) {
			return invalid("%s: %.80q and %.80q are not in order", what, fmt.Sprint(key(list[i-1])), fmt.Sprint(key(list[i])))
		}
	}
	return nil
}

// unique checks that a list has nothing twice.
func unique[T any](what string, list []T, key func(T) string) error {
	seen := make(map[string]bool, len(list))
	for _, x := range list {
		if seen[key(x)] {
			return invalid("%s: %.80q stands twice", what, key(x))
		}
		seen[key(x)] = true
	}
	return nil
}

func checkBlob(b release.Blob, most int64) error {
	if b.Digest.IsZero() {
		return invalid("no digest")
	}
	if b.Size < 0 || b.Size > most {
		return invalid("size %d is not from 0 to %d", b.Size, most)
	}
	return nil
}

// checkText takes what can stand in a request to an engine.
func checkText(s string) error {
	if len(s) > MaxText {
		return invalid("%d bytes are more than %d", len(s), MaxText)
	}
	if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
		return invalid("%.80q is no text", s)
	}
	return nil
}

// checkLine takes a text of one line that says something.
func checkLine(s string) error {
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return invalid("%.80q is not a line of text", s)
	}
	return checkText(s)
}

func checkLines(what string, list []string) error {
	if len(list) > MaxItems {
		return invalid("%s: %d are more than %d", what, len(list), MaxItems)
	}
	for _, s := range list {
		if err := checkLine(s); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// sortedLines is checkLines for a list without an order of its own.
func sortedLines(what string, list []string) error {
	if err := ascending(what, list, func(s string) string { return s }); err != nil {
		return err
	}
	return checkLines(what, list)
}

// checkMap checks names and values.
func checkMap(what string, m map[string]string) error {
	if len(m) > MaxItems {
		return invalid("%s: %d are more than %d", what, len(m), MaxItems)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err := checkLine(k); err != nil || strings.Contains(k, "=") {
			return invalid("%s: %.80q is not a name", what, k)
		}
		if err := checkText(m[k]); err != nil {
			return fmt.Errorf("%s: %s: %w", what, k, err)
		}
	}
	return nil
}

func checkLabels(m map[string]string) error {
	for k := range m {
		if strings.HasPrefix(k, LabelPrefix) {
			return invalid("label %.80q: those are the device's", k)
		}
	}
	return checkMap("labels", m)
}

func checkDriver(driver string, opts, labels map[string]string) error {
	if driver != "" && checkEngineName(driver) != nil {
		return invalid("%.80q is not the name of a driver", driver)
	}
	if err := checkMap("driver options", opts); err != nil {
		return err
	}
	return checkLabels(labels)
}

// checkNames checks what something is called in the app and at the engine.
func checkNames(name, engine string) error {
	if err := release.CheckName(name); err != nil {
		return err
	}
	return checkEngineName(engine)
}

// checkEngineName takes what every engine takes as a name, and nothing that
// could be a path.
func checkEngineName(s string) error {
	if len(s) < 2 || len(s) > 200 || !only(s, letters+digits+"._-") || strings.ContainsAny(s[:1], "._-") {
		return invalid("%.80q is not a name at an engine", s)
	}
	return nil
}

// checkAbs takes a clean absolute path, and not the root itself.
func checkAbs(what, p string) error {
	if err := checkLine(p); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if len(p) > 4096 || !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		return invalid("%s: %.80q is not a clean absolute path", what, p)
	}
	return nil
}

// oneOf checks a word of a closed list.
func oneOf[T ~string](what string, word T, words ...T) error {
	if !slices.Contains(words, word) {
		return invalid("%s: %.80q is not one of %q", what, word, words)
	}
	return nil
}

// within checks a number.
func within[T int | int64](what string, n, least, most T) error {
	if n < least || n > most {
		return invalid("%s: %d is not from %d to %d", what, n, least, most)
	}
	return nil
}
