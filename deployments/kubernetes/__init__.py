"""What Kubernetes needs: job templates of the work pools, values of the charts, manifests of ours."""
