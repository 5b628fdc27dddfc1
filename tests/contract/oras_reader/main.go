// Reads an image out of an OCI layout into a folder, as `oras copy --from-oci-layout` and `oras pull` do: oras-go itself.
package main

import (
	"context"
	"fmt"
	"os"

	"oras.land/oras-go/pkg/content"
	"oras.land/oras-go/pkg/oras"
)

func main() {
	layout, tag, folder := os.Args[1], os.Args[2], os.Args[3]
	from, err := content.NewOCI(layout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	to := content.NewFile(folder)
	defer to.Close()
	found, err := oras.Copy(context.Background(), from, tag, to, "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(found.Digest)
}
