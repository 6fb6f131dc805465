package script

import "time"

// Grace is how long a program has from SIGTERM, when its time is over, to
// SIGKILL.
const Grace = 5 * time.Second
