package fetch

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"
)

// pacer lets so many bytes a second through, a quarter of a second's at once.
func pacer(perSecond int64) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, 1<<20)
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/4, 1), 1<<20)))
}

// wait makes up for n bytes that were read. It does not begin to where the time
// would be over before.
func (c *Client) wait(ctx context.Context, n int) error {
	err := c.pace.WaitN(ctx, n)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w at %d bytes a second", ErrBudget, c.o.MaxRate)
	}
	return err
}
