package tuf_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestRaisedAttempt: the same release with a raised attempt is what an operator
// asks for who wants it tried again; an attempt hides no other change.
func TestRaisedAttempt(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)

	again := newRelease(1)
	again.Attempt = 1
	m.add(again)
	m.publish()
	s := source(t, o)
	r, err := s.Latest(t.Context(), device)
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Attempt)
	_, err = s.Locator(t.Context(), r)
	require.NoError(t, err)

	again.Attempt, again.Version = 2, "1.0-fixed"
	m.add(again)
	m.publish()
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrReplaced)
}
