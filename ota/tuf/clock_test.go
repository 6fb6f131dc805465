package tuf_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// clocks are what a device's clock may say, in steps of ten years around the
// truth, and where clocks stand or end.
func clocks(built time.Time) map[string]time.Time {
	all := map[string]time.Time{
		"1970": time.Unix(0, 0), "built a day later": built.Add(-day), "2038": time.Unix(1<<31, 0), "2106": time.Unix(1<<32-1, 0),
		"year 0": {}, "right": today, "a day early": today.Add(-day), "a day late": today.Add(day),
	}
	for _, years := range []int{-50, -40, -30, -20, -10, 10, 20, 30, 40, 50} {
		all["today"+time.Duration(years).String()] = today.AddDate(years, 0, 0)
	}
	return all
}

// TestClockModel: with every pair of what the clock says before and during a lookup,
// and in each order of a fresh and an expired repository, nothing is taken
// that has expired by the time of the build or of the newest timestamp; and
// once the clock is right, the device takes the fresh one.
func TestClockModel(t *testing.T) {
	built := today.Add(-30 * day)
	r := otatest.NewTUFRepo(t, built.Add(-200*day)) // its roles last 90 days
	r.AddRelease("targets", 1, nil)
	r.Publish()
	expired := r.Copy() // before the program was built
	r.Issue(built.Add(day), 10*day)
	r.AddRelease("targets", 2, nil)
	r.Publish()
	frozen := r.Copy() // before the newest timestamp
	r.Issue(today.Add(-time.Hour), 90*day)
	r.AddRelease("targets", 3, nil)
	r.Publish()

	all := clocks(built)
	pairs := all
	if os.Getenv("PAWL_CRASH") != "long" {
		pairs = map[string]time.Time{"1970": all["1970"], "2106": all["2106"], "right": today}
	}
	for before, first := range all {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			for during, second := range pairs {
				o := optionsFor(t, r, expired.Dir)
				o.BuildTime, o.TrustClock = built, false
				calls := 0
				o.Now = func() time.Time {
					if calls++; calls%2 == 1 {
						return first
					}
					return second
				}
				_, err := latest(t, o)
				require.ErrorIs(t, err, tuf.ErrExpired, "before the build, clock %s then %s", before, during)
				o.URL = r.Dir
				if _, err = latest(t, o); err != nil {
					require.ErrorIs(t, err, tuf.ErrClockUntrusted, "the repository is fresh, clock %s then %s", before, during)
				}
				seen := err == nil
				o.URL = frozen.Dir
				_, err = latest(t, o)
				if seen {
					require.Error(t, err, "before the newest timestamp, clock %s then %s", before, during)
					require.NotErrorIs(t, err, tuf.ErrUnavailable)
				}
				o.URL, o.Now = r.Dir, func() time.Time { return today }
				seq, err := latest(t, o)
				require.NoError(t, err, "the clock is right after %s then %s", before, during)
				require.EqualValues(t, 3, seq)
			}
		})
	}
}

// TestExpiredByTheFloor: a device without a clock that knows a fresh timestamp takes
// nothing that had expired by then, of any role, however its clock stands.
func TestExpiredByTheFloor(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "team"} {
		for name, now := range clocks(today) {
			if os.Getenv("PAWL_CRASH") != "long" && !slices.Contains([]string{"1970", "2106", "right"}, name) {
				continue
			}
			t.Run(role+" "+name, func(t *testing.T) {
				t.Parallel()
				r := otatest.NewTUFRepo(t, today)
				r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
				r.AddRelease("team", 1, nil)
				r.Publish()
				o := optionsFor(t, r, r.Dir)
				o.TrustClock = false
				_, err := latest(t, o)
				require.NoError(t, err)
				r.Roles[role].Expire(today.Add(-time.Second))
				r.Publish()
				o.Now = func() time.Time { return now }
				want := tuf.ErrExpired
				if role == "team" && now.After(today.Add(90*day)) {
					want = tuf.ErrClockUntrusted // what is above it has expired by the clock
				}
				for range 2 {
					_, err = latest(t, o)
					require.ErrorIs(t, err, want)
				}
				r.Roles[role].Expire(today.Add(90 * day))
				r.Publish()
				o.Now = func() time.Time { return today }
				_, err = latest(t, o)
				require.NoError(t, err)
			})
		}
	}
}

// TestDelegatedRoleExpiredByTheClock alone is said to be so.
func TestDelegatedRoleExpiredByTheClock(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.Roles["team"].Expire(today.Add(10 * day))
	r.AddRelease("team", 1, nil)
	r.Publish()
	o := optionsFor(t, r, r.Dir)
	for late, want := range map[time.Duration]error{9 * day: nil, 11 * day: tuf.ErrClockUntrusted} {
		o.TrustClock, o.Now = false, func() time.Time { return today.Add(late) }
		_, err := latest(t, o)
		checkError(t, want, err)
	}
	o.TrustClock, o.Now = true, func() time.Time { return today.Add(11 * day) }
	_, err := latest(t, o)
	require.ErrorIs(t, err, tuf.ErrExpired)
	o.Now = func() time.Time { return today }
	_, err = latest(t, o)
	require.NoError(t, err)
}
