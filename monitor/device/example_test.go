package device_test

import (
	"fmt"

	"github.com/pawl-ota/pawl/monitor/device"
)

// One look at the device.
func Example() {
	d, err := device.New(device.Options{Paths: []string{"/"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	values, err := d.Sample()
	fmt.Println(values["disk./.size"] > 0, err)
	// Output: true <nil>
}
