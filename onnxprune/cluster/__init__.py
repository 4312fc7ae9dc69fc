"""Work that a Dask cluster shares: the one room that knows Dask, which is imported when it is asked for."""
