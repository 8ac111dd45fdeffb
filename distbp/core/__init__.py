"""What every room needs: errors, options, settings, random streams, storage, the fixed tree."""
